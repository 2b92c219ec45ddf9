import copy
import hashlib
import json
import os
import pickle
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
import torch_fidelity
from safetensors.torch import save_file
from torch import nn
from torch_fidelity import FeatureExtractorInceptionV3
from torchmetrics.image.fid import FrechetInceptionDistance

from lit_generative.description import describe
from lit_generative.evaluation import features as features_module
from lit_generative.evaluation.features import FASHION_WEIGHTS, default_extractor, load_extractor
from lit_generative.evaluation.metrics import SampleQuality
from lit_generative.evaluation.published_features import InceptionExtractor
from lit_generative.evaluation.weights_files import INCEPTION
from lit_generative.nn.classifier import Classifier


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory):
    """A file of random InceptionV3 weights, of a scale that lets signals through."""
    download = "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url"
    with mock.patch(download), mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"):
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["64"])
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


class Bytes(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images.expand(-1, 3, -1, -1)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def test_inception_distances_equal_torch_fidelitys_and_torchmetrics(inception_weights, real_images):
    pixels = ((real_images[0][:132] + 1) * 127.5).round().byte()
    real, fake = pixels[::2], (pixels[1::2] * 0.7).byte()
    extractor = InceptionExtractor(inception_weights, layer=64)
    quality = SampleQuality(64)
    quality.update(extractor(real / 127.5 - 1), real=True)
    quality.update(extractor(fake / 127.5 - 1), real=False)
    ours = quality.compute()

    reference = FrechetInceptionDistance(64, feature_extractor_weights_path=str(inception_weights), antialias=False)
    reference.update(real.expand(-1, 3, -1, -1), real=True)
    reference.update(fake.expand(-1, 3, -1, -1), real=False)
    assert ours["frechet_distance"].item() == pytest.approx(reference.compute().item(), rel=1e-6)

    fidelity = torch_fidelity.calculate_metrics(
        input1=Bytes(fake), input2=Bytes(real), fid=True, kid=True, prc=True, cuda=False, cache=False, verbose=False,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(inception_weights),
        feature_layer_fid="64", feature_layer_kid="64", feature_layer_prc="64", save_cpu_ram=True,
        kid_subsets=1, kid_subset_size=66, batch_size=33,
    )  # fmt: skip
    assert ours["frechet_distance"].item() == pytest.approx(fidelity["frechet_inception_distance"], rel=1e-6)
    assert ours["kernel_distance"].item() == pytest.approx(
        fidelity["kernel_inception_distance_mean"], rel=1e-5
    )  # float32
    assert ours["precision"].item() == pytest.approx(fidelity["precision"], abs=1e-6)
    assert ours["recall"].item() == pytest.approx(fidelity["recall"], abs=1e-6)


def test_only_the_standard_inception_features_give_a_fid(inception_weights):
    assert load_extractor(f"inception:{inception_weights}").metric_names["frechet_distance"] == "fid"
    assert not InceptionExtractor(inception_weights, layer=192).metric_names


def test_missing_inception_is_an_error_that_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"checkpoints.weights-inception-2015-12-05-6726825d.pth does not exist"
    ):
        load_extractor("inception")
    with pytest.raises(FileNotFoundError, match=r"nowhere.pth does not exist.*lit-generative extractor"):
        load_extractor("inception:nowhere.pth")


def test_inception_is_found_in_torch_hubs_cache(inception_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / INCEPTION.names[1]).symlink_to(inception_weights)
    extractor = load_extractor("inception")
    assert extractor.digest == hashlib.sha256(inception_weights.read_bytes()).hexdigest()


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap(str(tmp_path / "sprung"))))
    with pytest.raises(ValueError, match=r"inception .*trap.pth is refused"):
        load_extractor(f"inception:{tmp_path / 'trap.pth'}")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("spec", ["inceptionn", "fashion.pth", ""])
def test_unknown_extractor_is_an_error_that_lists_the_known(spec):
    with pytest.raises(ValueError, match=r"extractor is .*; it must be fashion, random, imagenet, inception"):
        load_extractor(spec)


def test_damaged_weights_are_refused(tmp_path, monkeypatch):
    content = bytearray(FASHION_WEIGHTS.read_bytes())
    content[-1] ^= 1
    (tmp_path / "fashion.safetensors").write_bytes(content)
    monkeypatch.setattr(features_module, "FASHION_WEIGHTS", tmp_path / "fashion.safetensors")
    with pytest.raises(ValueError, match=r"fashion.safetensors is damaged: its SHA-256 is"):
        load_extractor("fashion")


@pytest.mark.parametrize("metadata", [{}, {"network": "{}", "class_names": "[]"}])
def test_a_file_of_other_weights_is_refused(tmp_path, metadata):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors", metadata)
    with pytest.raises(ValueError, match=r"other.safetensors was not written by `lit-generative extractor`"):
        load_extractor(tmp_path / "other.safetensors")


def test_embedded_extractor_is_small_accurate_and_standardised(real_images):
    extractor = load_extractor("fashion")
    assert FASHION_WEIGHTS.stat().st_size <= 500_000
    assert sum(p.numel() for p in extractor.network.parameters()) <= 250_000
    assert hashlib.sha256(FASHION_WEIGHTS.read_bytes()).hexdigest() == extractor.digest
    images, labels = real_images
    features = extractor(images)
    assert (extractor.classify(features).argmax(dim=1) == labels).double().mean() >= 0.9
    assert features.mean(dim=0).abs().max() < 0.3  # few images, so not exactly 0 and 1
    assert (features.std(dim=0) - 1).abs().max() < 0.3


def test_embedded_extractor_takes_other_sizes_and_channels(real_images):
    images, _ = real_images
    extractor = load_extractor("fashion")
    color = images.expand(-1, 3, -1, -1)
    assert torch.allclose(extractor(color), extractor(images), atol=1e-4)
    larger = nn.functional.interpolate(images, scale_factor=2, mode="bilinear")
    agree = [extractor.classify(extractor(x)).argmax(dim=1) for x in (larger, images)]
    assert torch.eq(*agree).double().mean() > 0.9


def test_an_extractor_stays_frozen_and_leaves_the_users_module_alone(real_images):
    images, _ = real_images
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784))
    before = copy.deepcopy(module.state_dict())
    extractor = load_extractor(module).train()
    nn.Sequential(extractor).train()
    first = extractor(images)
    assert torch.equal(extractor(images), first)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert module.training
    assert all(p.requires_grad for p in module.parameters())
    assert not any(p.requires_grad for p in extractor.parameters())


def test_features_ignore_reduced_precision(real_images):
    images, _ = real_images
    extractor = load_extractor("fashion")
    expected = extractor(images[:50])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(extractor(images[:50]), expected)


def test_digest_of_a_module_follows_weights_and_structure():
    module = nn.Linear(4, 2).requires_grad_(False)
    digest = load_extractor(module).digest
    assert load_extractor(copy.deepcopy(module)).digest == digest
    module.weight[0, 0] += 1
    assert load_extractor(module).digest != digest
    assert load_extractor(nn.Flatten()).digest != load_extractor(nn.Flatten(2)).digest


def test_what_is_not_one_vector_an_image_is_refused():
    with pytest.raises(ValueError, match=r"extractor 'Unflatten' gives features"):
        load_extractor(nn.Unflatten(0, (2, 2)))(torch.zeros(4, 1, 8, 8))


def test_default_extractor_goes_by_the_data_and_by_what_is_there(data, inception_weights, tmp_path, monkeypatch):
    cats = SimpleNamespace(name="owner/cats", num_classes=10)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert default_extractor(data) == "fashion"
    assert default_extractor(cats) == "imagenet"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / INCEPTION.names[0]).symlink_to(inception_weights)
    assert default_extractor(cats) == "inception"
    assert default_extractor(SimpleNamespace(name="zalando-datasets/fashion_mnist", num_classes=10)) == "fashion"


def test_classifier_takes_any_size_from_eight_pixels_on():
    for size in (8, 28, 33, 100):
        network = Classifier((3, size, size), num_classes=4).eval()
        assert network(torch.randn(2, 3, size, size)).shape == (2, 4)
        assert sum(p.numel() for p in network.parameters()) <= 250_000
        assert json.loads(json.dumps(describe(network)))["init_args"]["num_classes"] == 4
    with pytest.raises(ValueError, match=r"image_shape .* is too small"):
        Classifier((1, 7, 7), num_classes=4)
    with pytest.raises(ValueError, match="num_classes=1: it must be at least 2"):
        Classifier((1, 8, 8), num_classes=1)
