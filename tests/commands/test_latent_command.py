"""``lit-generative latent``: from a checkpoint to a folder of pictures."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from PIL import Image
from running import run
from torch import Tensor

from lit_generative import DDPM, VAE, GenerativeModule, ImageDataModule
from lit_generative.commands.tools import latent
from lit_generative.diffusion import DDIM, StaticThresholding
from lit_generative.gan import GAN
from lit_generative.latent_space.explore import explore
from lit_generative.latent_space.selection import LatentRequest
from lit_generative.nn import UNet

OTHER = [
    "--data.dataset",
    "fashion-mnist",
    "--data.subset",
    "100",
    "--data.in_memory",
    "false",
    "--data.num_workers",
    "0",
]
TINY = ["--num_images", "3", "--steps", "4", "--max_images", "100"]


@pytest.fixture
def save(make_trainer: Callable[..., L.Trainer], data: ImageDataModule, tmp_path: Path) -> Callable[..., str]:
    """Train a model for one batch and save it, with its data or without."""

    def write(model: GenerativeModule, images: ImageDataModule | None = data) -> str:
        trainer = make_trainer(max_steps=1, limit_val_batches=0)
        if images is None:
            trainer.fit(model, data.train_dataloader())
        else:
            trainer.fit(model, datamodule=images)
        path = tmp_path / "model.ckpt"
        trainer.save_checkpoint(path)
        return str(path)

    return write


@pytest.fixture
def data() -> ImageDataModule:
    return ImageDataModule(subset=200, batch_size=50, in_memory=False, num_workers=0)


@pytest.fixture
def ddpm() -> DDPM:
    torch.manual_seed(0)
    network = UNet((1, 28, 28), widths=(8, 8), blocks=1, attention=(), groups=4, patch=4)
    return DDPM(network, (1, 28, 28), sampler=DDIM(4, thresholding=StaticThresholding()))


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def grid(columns: int, rows: int) -> tuple[int, int]:
    return 30 * columns - 2, 30 * rows - 2


def test_a_vae(save: Callable[..., str], make_vae: Callable[..., VAE], data: ImageDataModule, tmp_path: Path, capsys):
    model, out = make_vae(), tmp_path / "out"
    latent([save(model), "--output", str(out), *TINY])
    printed = capsys.readouterr().out
    assert "VAE after 50 images" in printed
    assert "active units" in printed
    assert "chance: 0.100" in printed
    sizes = {path.stem: size(path) for path in out.glob("*.png")}
    assert sizes.pop("map") > (600, 500)
    assert sizes == {
        "reconstructions": grid(3, 2),
        "traversals": grid(4, 3),
        "interpolations_linear": grid(6, 3),
        "interpolations_spherical": grid(6, 3),
        "manifold": grid(16, 16),
    }
    assert set(json.loads((out / "numbers.json").read_text())) == {
        "active units",
        "linear probe's accuracy on 100 test images",
    }
    with (out / "latents.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*(f"z_{i}" for i in range(8)), "label", "split"]
    found = explore(model.eval(), data, LatentRequest(3, 4, max_images=100)).latents
    assert found is not None
    read = torch.tensor([[float(row[f"z_{i}"]) for i in range(8)] for row in rows])
    torch.testing.assert_close(read, found.z, rtol=1e-6, atol=1e-6)
    assert found.labels is not None
    assert [int(row["label"]) for row in rows] == found.labels.tolist()
    assert {row["split"] for row in rows} == {"test"}


def test_a_gan_of_classes(save: Callable[..., str], make_gan: Callable[..., GAN], tmp_path: Path) -> None:
    out = tmp_path / "out"
    latent([save(make_gan(num_classes=10)), "--output", str(out), "--labels", "[3,5]", *TINY])
    assert {path.name: size(path) for path in out.iterdir()} == {"interpolations.png": grid(4, 3)}


def test_a_diffusion_model(save: Callable[..., str], ddpm: DDPM, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    latent([save(ddpm), "--output", str(out), *TINY])
    assert "encoded and decoded: root mean square error" in capsys.readouterr().out
    assert {path.stem: size(path) for path in out.glob("*.png")} == {
        "denoising": grid(4, 3),
        "interpolations_of_noise": grid(4, 3),
        "interpolations_of_images": grid(6, 3),
        "encoded_and_decoded": grid(3, 3),
    }


def test_the_seed_decides(save: Callable[..., str], make_gan: Callable[..., GAN], tmp_path: Path) -> None:
    checkpoint, found = save(make_gan()), {}
    for name, seed in {"a": "1", "b": "1", "c": "2"}.items():
        latent([checkpoint, "--output", str(tmp_path / name), "--seed", seed, *TINY])
        found[name] = (tmp_path / name / "interpolations.png").read_bytes()
    assert found["a"] == found["b"] != found["c"]


def test_other_images_than_the_checkpoints(
    save: Callable[..., str], make_vae: Callable[..., VAE], data: ImageDataModule, tmp_path: Path
) -> None:
    checkpoint = save(make_vae(), None)
    with pytest.raises(ValueError, match=r"data=None, but real images are to be shown: give data \(--data ImageData"):
        latent([checkpoint, "--output", str(tmp_path / "out"), *TINY])
    assert not (tmp_path / "out").exists()
    latent([checkpoint, "--output", str(tmp_path / "out"), *OTHER, *TINY])
    assert (tmp_path / "out" / "latents.csv").is_file()


def test_nothing_is_overwritten(make_vae: Callable[..., VAE], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for output in ("out", "out/mine.txt"):
        with pytest.raises(ValueError, match=f"{output} is there already; give another one, nothing is overwritten"):
            latent(["absent.ckpt", "--output", str(tmp_path / output)])
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_images", "0"], "num_images=0: it must be at least 1"),
        (["--steps", "1"], "steps=1: it must be at least 2"),
        (["--max_images", "5"], "max_images=5: it must be at least 20"),
    ],
)
def test_numbers_that_are_too_small_are_refused(options: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        latent(["absent.ckpt", "--output", str(tmp_path / "out"), *options])


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.ckpt: there is no such file"):
        latent(["absent.ckpt", "--output", str(tmp_path / "out")])


def test_a_missing_output_is_asked_for(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        latent(["some.ckpt"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "lit-generative: error: missing --output\n"


class Outer(GenerativeModule):
    """A user's model, that has nothing but samples."""

    def __init__(self) -> None:
        super().__init__()
        self.shade = torch.nn.Parameter(torch.zeros(()))

    def losses(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        return {"loss": (x - self.shade).square().flatten(1).sum(1)}

    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        return self.shade.detach().expand(n, 1, 28, 28)


def test_a_users_model_shows_samples(save: Callable[..., str], tmp_path: Path) -> None:
    latent([save(Outer()), "--output", str(tmp_path / "out"), *TINY])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["samples.png"]


def test_a_missing_checkpoint_is_asked_for_as_the_usage_has_it() -> None:
    outcome = run("latent", "--output", "x")
    assert (outcome.status, outcome.err) == (2, "lit-generative: error: missing CKPT\n")
