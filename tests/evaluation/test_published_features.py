"""Extractors with published weights, of random ones: against torch-fidelity, and by what they refuse."""

import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

from lit_generative.evaluation import weights_files
from lit_generative.evaluation.features import default_extractor, load_extractor
from lit_generative.evaluation.published_features import ImageNetExtractor
from lit_generative.evaluation.weights_files import CLIP, DINOV2, PublishedWeights, download
from lit_generative.pictures import to_uint8


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch hub."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def pictures(channels: int = 3, height: int = 20, width: int = 28) -> Tensor:
    return torch.rand(3, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Archive(nn.Module):
    """What OpenAI's files are: a scripted module, of which the state is used alone."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name, value in state.items():
            module: nn.Module = self
            *path, last = name.split(".")
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_parameter(last, nn.Parameter(value, requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture
def clip_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CLIP of random weights, known by its SHA-256 as that of the CMMD."""
    torch.manual_seed(0)
    width, patch, side, depth, dim = 64, 8, 4, 2, 16
    block = {
        "attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width), "attn.out_proj.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width), "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width), "mlp.c_proj.bias": (width,),
        **{f"ln_{i}.{part}": (width,) for i in (1, 2) for part in ("weight", "bias")},
    }  # fmt: skip
    shapes = {
        "visual.conv1.weight": (width, 3, patch, patch), "visual.class_embedding": (width,),
        "visual.positional_embedding": (side**2 + 1, width), "visual.proj": (width, dim),
        **{f"visual.ln_{when}.{part}": (width,) for when in ("pre", "post") for part in ("weight", "bias")},
        **{f"visual.transformer.resblocks.{i}.{key}": shape for i in range(depth) for key, shape in block.items()},
        "text_projection": (8, dim),
    }  # fmt: skip
    state = {name: (0.2 * torch.randn(shape)).half().float() for name, shape in shapes.items()}
    path = tmp_path / "clip.pt"
    torch.jit.save(torch.jit.script(Archive(state)), str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(CLIP, "vit-l-14-336px", PublishedWeights((path.name,), "https://example.org/clip.pt", digest))
    return path


def test_clip_is_torch_fidelitys_and_has_the_cmmd(clip_file: Path) -> None:
    extractor = load_extractor(f"clip:{clip_file}")
    reference = FeatureExtractorCLIP("clip-vit-l-14-336px", ["clip"], str(clip_file))
    assert reference.resolution == 32
    expected = reference(to_uint8(pictures()))[0]
    assert expected.std() > 0.01
    torch.testing.assert_close(extractor(pictures()), expected)
    assert extractor.metric_names == {"gaussian_kernel_distance": "cmmd"}
    assert extractor.name == "clip-vit-l-14-336px"
    assert extractor(pictures(1)).shape == (3, 16)


def test_clip_files_of_others_are_not_opened(clip_file: Path) -> None:
    clip_file.write_bytes(clip_file.read_bytes() + b"x")
    with mock.patch("torch.jit.load") as load, pytest.raises(ValueError, match=r"clip.pt is, by its SHA-256, none of"):
        load_extractor(f"clip:{clip_file}")
    assert not load.called


@pytest.fixture(scope="module")
def dinov2_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the smallest DINOv2, for images of 518 pixels, as Meta's are."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch14_dinov2", img_size=518, num_classes=0)
    state = {name: value + 0.02 * torch.randn_like(value) for name, value in network.state_dict().items()}
    path = tmp_path_factory.mktemp("dinov2") / "weights.pth"
    torch.save(state | {"mask_token": torch.zeros(1, 384)}, path)
    return path


def test_dinov2_images_are_prepared_as_by_torch_fidelity(dinov2_file: Path) -> None:
    extractor = load_extractor(f"dinov2-vit-s-14:{dinov2_file}")
    with mock.patch("torch.hub.load", return_value=extractor.network):
        reference = FeatureExtractorDinoV2("dinov2-vit-s-14", ["dinov2"])
    expected = reference(to_uint8(pictures()))[0]
    torch.testing.assert_close(extractor(pictures()), expected, rtol=1e-4, atol=1e-4)
    assert expected.std(dim=0).mean() > 1e-3
    assert not extractor.metric_names


def test_dinov2_positions_are_interpolated_where_they_are(dinov2_file: Path) -> None:
    """A field that is linear in x stays so: the patches of 224 pixels look at the places of those of 518."""
    extractor = load_extractor(f"dinov2-vit-s-14:{dinov2_file}")
    field = torch.linspace(0, 1, 37).expand(37, 37).reshape(1, -1, 1)
    found = extractor._positions(torch.cat([torch.zeros(1, 1, 1), field], dim=1))[0, 1:, 0].view(16, 16)
    expected = ((torch.arange(16) + 0.5) * 37 / 16.1 - 0.5) / 36  # with DINOv2's offset of 0.1
    torch.testing.assert_close(found[8, 2:-2], expected[2:-2], rtol=0, atol=2e-3)
    torch.testing.assert_close(found, found[:1].expand(16, 16))


@pytest.mark.parametrize("content", ["other", "nothing"])
def test_other_weights_are_one_sentence(content: str, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    torch.save({"x": torch.zeros(1)} if content == "other" else [1], tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"extractor dinov2.*w\.pth"):
        load_extractor(f"dinov2-vit-s-14:{tmp_path / 'w.pth'}")


def test_imagenet_features_tell_pictures_apart_of_any_shape(real_images: tuple[Tensor, Tensor]) -> None:
    extractor = load_extractor("imagenet")
    assert isinstance(extractor, ImageNetExtractor)
    for channels, height, width in ((1, 28, 28), (2, 5, 9), (3, 200, 64)):
        features = extractor(pictures(channels, height, width))
        assert features.shape == (3, 1280)
        assert features.isfinite().all()
    images, labels = real_images[0][:200], real_images[1][:200]
    features = extractor(images)
    centred = nn.functional.normalize(features - features.mean(dim=0), dim=1)
    nearest = (centred @ centred.T).fill_diagonal_(-1).argmax(dim=1)
    assert (labels[nearest] == labels).float().mean() > 0.6  # by chance 0.1


def test_imagenet_weights_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageNetExtractor, "sha256", "0" * 64)
    with pytest.raises(ValueError, match=r"extractor imagenet: .* is damaged"):
        load_extractor("imagenet")


@pytest.mark.parametrize(("spec", "module"), [("imagenet", "efficientnet_lite_pytorch"), ("dinov2", "timm")])
def test_a_missing_package_is_one_sentence(
    spec: str, module: str, dinov2_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"extractor {spec} needs .*lit-generative\[{spec}\]"):
        load_extractor(f"dinov2:{dinov2_file}" if spec == "dinov2" else spec)


def test_own_pictures_get_imagenet_features_where_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    cats = SimpleNamespace(name="cats", num_classes=None)
    assert default_extractor(cats) == "imagenet"
    monkeypatch.setattr("lit_generative.evaluation.features.has_imagenet", lambda: False)
    assert default_extractor(cats) == "random"


@pytest.mark.parametrize("spec", ["clip", "clip-vit-b-32", "dinov2", "dinov2-vit-g-14", "inception"])
def test_missing_weights_say_where_they_would_be_and_nothing_is_fetched(spec: str) -> None:
    with mock.patch("torch.hub.download_url_to_file") as fetch:
        with pytest.raises(
            FileNotFoundError, match=rf"extractor {spec} needs its weights.*Put the file of https"
        ) as error:
            load_extractor(spec)
        with pytest.raises(FileNotFoundError, match=r"none\.pth does not exist"):
            load_extractor(f"{spec}:none.pth")
    assert not fetch.called
    assert ("--download" in str(error.value)) == (not spec.startswith("dinov2"))


@pytest.mark.parametrize("spec", ["clip-vit-x", "dinov2-l", "clips", "imagenet:file", "random:1"])
def test_unknown_sizes_are_listed(spec: str) -> None:
    with pytest.raises(ValueError, match=r"it must be .*clip-vit-b-32.*dinov2-vit-l-14"):
        load_extractor(spec)


class TestDownload:
    """Fetching a file, from a stand-in for its publisher."""

    CONTENT = b"weights"

    @pytest.fixture
    def weights(self) -> PublishedWeights:
        return PublishedWeights(("w.pt",), "https://example.org/w.pt", hashlib.sha256(self.CONTENT).hexdigest())

    @pytest.fixture
    def publisher(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        publisher = SimpleNamespace(content=self.CONTENT, count=0)

        def fetch(url: str, path: str) -> None:
            publisher.count += 1
            Path(path).write_bytes(publisher.content)

        monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
        return publisher

    def test_it_is_checked_and_kept(self, weights: PublishedWeights, publisher: SimpleNamespace, hub: Path) -> None:
        assert download("clip", weights) == hub / "w.pt"
        assert (hub / "w.pt").read_bytes() == self.CONTENT
        download("clip", weights)
        assert publisher.count == 1

    def test_another_file_is_dropped(self, weights: PublishedWeights, publisher: SimpleNamespace, hub: Path) -> None:
        publisher.content = b"other"
        with pytest.raises(ValueError, match=r"is not the file of https://example.org/w.pt: its SHA-256 is"):
            download("clip", weights)
        assert list(hub.iterdir()) == []
        (hub / "w.pt").write_bytes(b"broken off")
        with pytest.raises(ValueError, match="is not the file of"):
            download("clip", weights)

    def test_no_network_is_one_sentence(
        self, weights: PublishedWeights, hub: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fetch(url: str, path: str) -> None:
            raise weights_files.URLError("Name or service not known")

        monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
        with pytest.raises(OSError, match=r"download: https://example.org/w.pt cannot be fetched"):
            download("clip", weights)
        assert list(hub.iterdir()) == []

    def test_without_a_hash_nothing_is_fetched(self, publisher: SimpleNamespace) -> None:
        with pytest.raises(ValueError, match=r"gives no hash to check .* by; fetch the file yourself"):
            load_extractor("dinov2", download=True)
        assert publisher.count == 0
        assert all(not weights.sha256 for weights in DINOV2.values())
