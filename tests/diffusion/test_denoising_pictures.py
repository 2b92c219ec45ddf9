from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import Logger
from PIL import Image
from torch import Tensor, nn

from lit_generative import DDPM, VAE, GenerativeModule, ImageDataModule
from lit_generative.callbacks import EMA, DenoisingPictures
from lit_generative.diffusion import DPMSolverPP2M, EDMSchedule
from lit_generative.diffusion.denoising_pictures import plot
from lit_generative.pictures import to_uint8

MakeTrainer = Callable[..., L.Trainer]


class Ramp(GenerativeModule):
    """Its samples brighten evenly, from -1 to the brightness of the image: a way of which every moment is known."""

    def __init__(self, steps: int = 20, num_classes: int | None = None) -> None:
        super().__init__(num_classes)
        self.brightness = nn.Parameter(torch.zeros(1))
        self.steps = steps
        self.labels: Tensor | None = None
        self.asked: list[tuple[int, str, Tensor]] = []  # (images seen, weights, held-out images)

    def losses(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        return {"loss": (x - self.brightness + 0.1 * torch.randn_like(x)).square().flatten(1).sum(1)}

    def trajectory(self, n: int, y: Tensor | None, *, generator: torch.Generator) -> Iterator[Tensor]:
        self.labels = y
        last = torch.linspace(0, 1, n) + 0 * torch.rand(n, generator=generator)
        for step in range(self.steps + 1):
            yield (-1 + (last + 1) * step / self.steps)[:, None, None, None].expand(n, 1, 4, 4)

    def loss_by_noise(self, x: Tensor, y: Tensor | None, num_levels: int) -> dict[str, Tensor]:
        self.asked.append((self.images_seen, self.weights, x))
        noise_mse = x.square().mean() * torch.linspace(1, 2, num_levels)
        return {"log_snr": torch.linspace(9, -9, num_levels), "noise_mse": noise_mse}


class Board(Logger):
    """A logger that takes images, through its experiment as TensorBoard's does."""

    name, version = "board", 0

    def __init__(self) -> None:
        super().__init__()
        self.logged: dict[str, Tensor] = {}

    @property
    def experiment(self) -> Any:
        return SimpleNamespace(add_image=lambda key, image, step: self.logged.update({key: image}))

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take numbers."""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Take options."""


@pytest.fixture(scope="module")
def data() -> ImageDataModule:
    return ImageDataModule(subset=40, batch_size=20)


def drawn(folder: Path) -> dict[str, list[int]]:
    """The images seen in the names of the files, by folder."""
    kinds = ("denoising", "loss_by_noise")
    return {kind: [int(path.stem[-10:]) for path in sorted((folder / kind).iterdir())] for kind in kinds}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def count(image: Tensor, colour: tuple[int, int, int]) -> int:
    return int((to_uint8(image) == torch.tensor(colour)[:, None, None]).all(0).sum())


# ------------------------------------------------------------------ the way


def test_a_row_is_an_image_and_a_column_a_moment_of_its_way(
    make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    trainer = make_trainer(callbacks=[DenoisingPictures(num_images=3, num_frames=6)], max_epochs=1, limit_val_batches=1)
    trainer.fit(Ramp(steps=20), datamodule=data)
    found = pixels(tmp_path / "denoising" / "images_0000000040.png")
    assert found.shape == (3 * 6 - 2, 6 * 6 - 2)  # 4x4 pixels and lines of two
    centres = found[2::6, 2::6].astype(int)
    share = np.linspace(0, 1, 6)  # of the way: moments 0, 4, ..., 20 of 20
    expected = 127.5 * (np.array([1, 1.5, 2])[:, None] * share)
    assert np.abs(centres - expected).max() <= 1


def test_a_conditional_model_shows_a_class_a_row(make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    model = Ramp(num_classes=10)
    trainer = make_trainer(callbacks=[DenoisingPictures(num_images=12)], max_epochs=1, limit_val_batches=0)
    trainer.fit(model, datamodule=data)
    assert model.labels is not None
    assert model.labels.tolist() == [*range(10), 0, 1]


# ------------------------------------------------------------------ the loss by noise level


def curve(level: float) -> dict[str, list[float]]:
    return {"log_snr": [-5.0, 0.0, 5.0], "noise_mse": [level, 2 * level, 4 * level]}


def test_the_present_curve_is_over_the_earlier_ones_in_grey() -> None:
    grey, blue = (204, 204, 204), (31, 119, 180)
    flat = {"log_snr": [-5.0, 5.0], "noise_mse": [0.1, 0.1]}
    alone, below = plot({80: flat}), plot({40: flat, 80: flat})
    both = plot({20: curve(0.2), 40: flat, 80: curve(0.01)})
    assert alone.shape == both.shape == (3, 360, 480)
    assert -1 <= both.min() < both.max() <= 1
    assert count(below, grey) == count(alone, grey) < 50 < 400 < count(both, grey)  # the present curve hides it
    assert count(both, blue) > 200


def test_a_diverged_model_has_a_picture_too() -> None:
    assert plot({40: curve(0.1), 80: curve(float("nan"))}).isfinite().all()


def test_the_loss_is_that_of_validation_images_of_the_average(make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    model, callback = Ramp(), DenoisingPictures(num_levels=5, num_held_out=30)
    options = {"max_epochs": 2, "limit_val_batches": 1, "num_sanity_val_steps": 1}
    make_trainer(callbacks=[callback, EMA(0.9)], **options).fit(model, datamodule=data)
    assert [(seen, weights) for seen, weights, _ in model.asked] == [(40, "ema 0.9"), (80, "ema 0.9")]
    images = next(iter(data.loader("val", batch_size=30, limit=30)))["image"]
    assert all(torch.equal(x, images) for _, _, x in model.asked)
    assert list(callback.curves) == [40, 80]
    assert callback.curves[80]["log_snr"] == [9, 4.5, 0, -4.5, -9]
    expected = (images.square().mean() * torch.linspace(1, 2, 5)).tolist()
    assert callback.curves[80]["noise_mse"] == pytest.approx(expected)


def test_the_curve_is_the_mean_over_processes(
    make_trainer: MakeTrainer, data: ImageDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process, played by the strategy, finds thrice as much."""
    found = []
    for theirs in (1, 3):
        callback = DenoisingPictures(num_levels=5)
        trainer = make_trainer(callbacks=[callback], max_epochs=1, limit_val_batches=0)
        both = lambda mine, reduce_op, theirs=theirs: (mine + theirs * mine) / 2 if reduce_op == "mean" else mine  # noqa: E731
        monkeypatch.setattr(trainer.strategy, "reduce", both)
        trainer.fit(Ramp(), datamodule=data)
        found.append(callback.curves[40]["noise_mse"])
    assert found[1] == pytest.approx([2 * mse for mse in found[0]])


# ------------------------------------------------------------------ the callback


def test_pictures_every_n_epochs_and_at_the_end(
    make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    trainer = make_trainer(callbacks=[DenoisingPictures(every_n_epochs=2)], max_epochs=5, limit_val_batches=1)
    trainer.fit(Ramp(), datamodule=data)
    assert drawn(tmp_path) == {"denoising": [80, 160, 200], "loss_by_noise": [80, 160, 200]}


def test_a_resumed_run_shows_the_curves_from_before(
    make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    def train(epochs: int, ckpt_path: Path | None = None, root: str = "runs") -> tuple[DenoisingPictures, L.Trainer]:
        callback = DenoisingPictures()
        trainer = make_trainer(callbacks=[callback], max_epochs=epochs, default_root_dir=tmp_path / root)
        trainer.fit(Ramp(), datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        return callback, trainer

    whole, _ = train(3)
    _, trainer = train(2, root="resumed")
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = train(3, tmp_path / "half.ckpt", root="resumed")
    assert list(resumed.curves) == [40, 80, 120]
    assert resumed.state_dict() == whole.state_dict()
    last = "loss_by_noise/images_0000000120.png"
    assert (pixels(tmp_path / "runs" / last) == pixels(tmp_path / "resumed" / last)).all()


def test_loggers_get_both_pictures(make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path) -> None:
    board = Board()
    trainer = make_trainer(callbacks=[DenoisingPictures()], logger=board, max_epochs=1, limit_val_batches=0)
    trainer.fit(Ramp(), datamodule=data)
    assert board.logged.keys() == {"denoising", "loss_by_noise"}
    for name, image in board.logged.items():
        written = pixels(next(tmp_path.rglob(f"{name}/images_0000000040.png")))
        logged = image.mul(255).round().byte().permute(1, 2, 0).squeeze(2).numpy()
        assert (logged == written).all()


class Spy(L.Callback):
    """Keeps the random state of each epoch's beginning and end."""

    def __init__(self) -> None:
        self.states: list[Tensor] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.states.append(torch.get_rng_state())

    on_train_end = on_train_epoch_end = on_train_epoch_start


def test_training_is_not_disturbed(make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    finals, states = [], []
    for callbacks in ([DenoisingPictures()], []):
        torch.manual_seed(0)
        model, spy = Ramp(), Spy()
        make_trainer(callbacks=[*callbacks, spy], max_epochs=2, limit_val_batches=1).fit(model, datamodule=data)
        finals.append(model.brightness.detach())
        states.append(torch.stack(spy.states))
    assert finals[0].abs().sum() > 0
    assert torch.equal(*finals)
    assert torch.equal(*states)


class Affine(nn.Module):
    """Stands in for a U-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layer(x) * t[:, None, None, None]


def test_a_diffusion_models_way_ends_in_its_sample(
    make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = DDPM(Affine(), (1, 28, 28), schedule=EDMSchedule(), sampler=DPMSolverPP2M(steps=12))
    callback = DenoisingPictures(num_images=4, num_frames=5)
    make_trainer(callbacks=[callback], max_epochs=1, limit_val_batches=1).fit(model, datamodule=data)
    picture = pixels(tmp_path / "denoising" / "images_0000000040.png")
    sample = to_uint8(model.sample(4, generator=torch.Generator().manual_seed(0)))
    for row, image in enumerate(sample[:, 0].numpy()):
        assert (picture[30 * row : 30 * row + 28, -28:] == image).all()
    noise = picture[:28, :28].astype(float) / 127.5 - 1  # of a standard deviation of 80, shown at 1
    assert abs(noise.mean()) < 0.1
    assert 0.6 < noise.std() < 0.8  # of a clamped normal variable: 0.72
    log_snr, noise_mse = (torch.tensor(callback.curves[40][name]) for name in ("log_snr", "noise_mse"))
    assert (log_snr.diff() < 0).all()
    assert (noise_mse > 0).all()


@pytest.mark.parametrize("option", ["every_n_epochs", "num_images", "num_frames", "num_levels", "num_held_out", "seed"])
def test_numbers_must_be_large_enough(option: str) -> None:
    with pytest.raises(ValueError, match=f"DenoisingPictures: {option}=-1 is too small"):
        DenoisingPictures(**{option: -1})


def test_a_model_that_does_not_denoise_is_refused(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    with pytest.raises(ValueError, match=r"DenoisingPictures needs .* VAE has no trajectory and no loss_by_noise"):
        make_trainer(callbacks=[DenoisingPictures()], max_epochs=1).fit(make_vae(), datamodule=data)


def test_validation_images_are_needed(make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    with pytest.raises(ValueError, match="DenoisingPictures needs a data module"):
        make_trainer(callbacks=[DenoisingPictures()], max_epochs=1).fit(Ramp(), data.loader("train"))
