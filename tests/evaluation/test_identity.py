"""What is kept and stamped follows what an extractor computes, the images, the weights and the metrics' code."""

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import NoisyCopies
from torch import nn

from lit_generative.data import ImageDataModule
from lit_generative.evaluation import Evaluator, Extractor, identity
from lit_generative.evaluation.random_features import RandomExtractor

QUIET = {"progress": False}


class Scaled(nn.Module):
    """Its scale is neither a parameter nor a buffer, and is not printed."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, images):
        return self.scale * nn.functional.avg_pool2d(images, 7).flatten(1)


class OtherCode(Scaled):
    def forward(self, images):
        return super().forward(images).abs()


OtherCode.__name__ = OtherCode.__qualname__ = "Scaled"


def evaluator(tmp_path, extractor, **options):
    values = {"num_samples": 60, "num_real": 100, "batch_size": 30, "cache_dir": str(tmp_path)}
    return Evaluator(extractor=extractor, **values | options)


@pytest.mark.parametrize("other", [Scaled(10.0), OtherCode(1.0)], ids=["attribute", "code"])
def test_extractors_that_differ_in_what_they_compute_share_no_cached_features(model, data, tmp_path, other):
    first = evaluator(tmp_path / "a", Extractor(Scaled(1.0))).evaluate(model, data, **QUIET)
    assert Extractor(Scaled(1.0)).digest == Extractor(other).digest  # structure and weights do not tell them apart
    after_first = evaluator(tmp_path / "a", Extractor(other)).evaluate(model, data, **QUIET)
    alone = evaluator(tmp_path / "b", Extractor(other)).evaluate(model, data, **QUIET)
    assert after_first.metrics == alone.metrics
    assert alone.protocol["extractor_probe"] != first.protocol["extractor_probe"]


def test_an_extractor_changed_in_place_is_another_one(model, data, tmp_path):
    extractor = Extractor(Scaled(1.0))
    found = evaluator(tmp_path, extractor)
    first = found.evaluate(model, data, **QUIET)
    extractor.network.scale = 2.0
    assert found.evaluate(model, data, **QUIET).metrics["frechet_distance"] == pytest.approx(
        4 * first.metrics["frechet_distance"], rel=1e-3
    )


def test_an_extractor_that_rolls_dice_is_refused(data):
    dropout = nn.Sequential(nn.Flatten())
    dropout.forward = lambda images: nn.functional.dropout(images.flatten(1))
    with pytest.raises(ValueError, match="gives the same images other features a second time; make it deterministic"):
        Evaluator(extractor=Extractor(dropout)).check(data)


def test_other_metric_code_makes_new_numbers(model, data, tmp_path, monkeypatch):
    found = evaluator(tmp_path, "fashion")
    before = found.evaluate(model, data, **QUIET).protocol["metrics_code"]
    files = set(found.cache.folder.iterdir())
    found.evaluate(model, data, **QUIET)
    assert set(found.cache.folder.iterdir()) == files
    for module in ("reference", "stamp"):
        monkeypatch.setattr(f"lit_generative.evaluation.{module}.code_digest", lambda: "another version")
    assert found.evaluate(model, data, **QUIET).protocol["metrics_code"] != before
    assert len(set(found.cache.folder.iterdir())) == 2 * len(files)


def test_the_version_is_of_all_sources_of_the_evaluation(monkeypatch, tmp_path):
    def digest():
        identity.code_digest.cache_clear()
        return identity.code_digest()

    real = digest()
    monkeypatch.setattr(identity, "files", lambda package: tmp_path)
    (tmp_path / "distances.py").write_text("a = 1")
    first = digest()
    (tmp_path / "distances.py").write_text("a = 2")
    assert len({real, first, digest()}) == 3
    identity.code_digest.cache_clear()


def faces(folder, seed, count=40):
    """A folder called faces, of 40 pictures in one class."""
    draw = np.random.RandomState(seed)
    (folder / "faces").mkdir(parents=True)
    for i in range(count):
        Image.fromarray(draw.randint(256, size=(8, 8)).astype(np.uint8)).save(folder / "faces" / f"{i}.png")
    return ImageDataModule(str(folder / "faces"), val_fraction=0.3)


def test_folders_of_one_name_are_told_apart_and_copies_of_one_are_not(tmp_path):
    def content(data):
        model = NoisyCopies(torch.zeros(1, 1, 8, 8), torch.zeros(1))
        found = evaluator(tmp_path / "cache", "random", num_samples=6, num_real=None).evaluate(model, data, **QUIET)
        return found.protocol["data_content"]

    one, copy, other = (faces(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert one.protocol("test") == other.protocol("test")
    assert content(one) == content(copy) != content(other)


def test_the_weights_are_part_of_the_stamp(model, data, tmp_path):
    found = evaluator(tmp_path, "fashion")
    first = found.evaluate(model, data, **QUIET).protocol["weights_sha256"]
    assert found.evaluate(model, data, **QUIET).protocol["weights_sha256"] == first
    model.batch_norm.bias.data += 1
    assert found.evaluate(model, data, **QUIET).protocol["weights_sha256"] != first


def test_content_adds_up_over_batches_in_any_order(real_images):
    images = real_images[0][:90]
    whole = identity.content_digest([identity.content_sum(images)], 90, (1, 28, 28))
    parts = [identity.content_sum(part) for part in images.flip(0).split(40)]
    assert identity.content_digest(parts, 90, (1, 28, 28)) == whole
    images = images.clone()
    images[3, 0, 0, 0] += 2 / 255
    assert identity.content_digest([identity.content_sum(images)], 90, (1, 28, 28)) != whole


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 5, 7), (2, 1, 1), (4, 70, 200)])
def test_random_features_are_of_any_images_and_of_no_random_state(shape):
    images = identity.probe_images(shape)
    torch.manual_seed(0)
    first = RandomExtractor()(images)
    torch.manual_seed(1)
    assert torch.equal(RandomExtractor()(images), first)
    assert first.shape == (4, 64)
    assert first.isfinite().all()
    assert torch.pdist(first).min() > 0 or shape == (2, 1, 1)
    assert not torch.equal(RandomExtractor(1)(images), first)


def test_random_features_notice_what_is_wrong_with_images(data, real_images, train_images, tmp_path):
    def distance(images):
        found = evaluator(tmp_path, "random", num_samples=400, num_real=500)
        return found.evaluate(NoisyCopies(images, train_images[1], 0), data, **QUIET).metrics["frechet_distance"]

    images, labels = train_images
    good = distance(images)
    worse = {
        "blurred": nn.functional.avg_pool2d(images, 3, 1, 1),
        "few": images[:20],
        "of half the classes": images[labels < 5],
        "mirrored": images.flip(-1),
        "dark": (images - 0.3).clamp(min=-1),
    }
    assert all(distance(found) > 1.5 * good for found in worse.values())
    found = evaluator(tmp_path, "random").evaluate(NoisyCopies(images, labels), data, **QUIET)
    assert found.protocol["extractor"] == "random"
    assert any("fixed random network" in warning for warning in found.warnings)
