import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import Logger
from PIL import Image
from torch import Tensor
from torch.distributions import Distribution

from lit_generative import VAE, ImageDataModule
from lit_generative.callbacks import SampleGrid, SampleWriter

MakeTrainer = Callable[..., L.Trainer]


@pytest.fixture(scope="module")
def data() -> ImageDataModule:
    return ImageDataModule(subset=40, batch_size=20)


class Numbers(Logger):
    """A logger that takes no images."""

    name, version = "numbers", 0

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[tuple[str, Any, int | None]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take numbers."""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Take options."""


class Pictures(Numbers):
    """A logger that takes images, as W&B's does."""

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        self.logged.append((key, images[0], step))


class Board(Numbers):
    """A logger that takes images through its experiment, as TensorBoard's does."""

    @property
    def experiment(self) -> Any:
        return self

    def add_image(self, tag: str, pixels: np.ndarray, global_step: int, *, dataformats: str) -> None:
        assert dataformats == "HWC"
        self.logged.append((tag, pixels, global_step))

    def add_text(self, tag: str, text: str) -> None:
        """Take a text."""


class Asked(VAE):
    """Remembers the labels that it was last asked for."""

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        self.labels = y
        return super().decode(z, y)


def still(model: VAE) -> VAE:
    """Let a model train without moving."""
    model.make_optimizer = functools.partial(torch.optim.SGD, lr=0.0)
    return model


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.array(picture)


def test_the_same_weights_give_the_same_picture(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    trainer = make_trainer(callbacks=[SampleGrid(16)], max_epochs=2, limit_val_batches=1)
    trainer.fit(still(make_vae()), datamodule=data)
    first, second = sorted((tmp_path / "grids").iterdir())
    assert (first.name, second.name) == ("images_0000000040.png", "images_0000000080.png")
    assert pixels(first).shape == (4 * 28 + 3 * 2, 4 * 28 + 3 * 2)
    assert (pixels(first) == pixels(second)).all()
    assert pixels(first).std() > 1


def test_other_weights_or_another_seed_give_another_picture(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    found = []
    for seed, prepare in ((0, still), (1, still), (0, lambda model: model)):
        root = tmp_path / str(len(found))
        trainer = make_trainer(callbacks=[SampleGrid(4, seed=seed)], max_epochs=1, default_root_dir=root)
        trainer.fit(prepare(make_vae()), datamodule=data)
        found.append(pixels(root / "grids" / "images_0000000040.png"))
    assert (found[0] != found[1]).any()
    assert (found[0] != found[2]).any()


def test_a_grid_every_n_epochs_and_at_the_end(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    trainer = make_trainer(callbacks=[SampleGrid(4, every_n_epochs=2)], max_epochs=5, limit_val_batches=1)
    trainer.fit(make_vae(), datamodule=data)
    assert [int(path.stem[-10:]) for path in sorted((tmp_path / "grids").iterdir())] == [80, 160, 200]


def test_a_conditional_model_shows_a_class_a_column(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    model = make_vae(Asked, num_classes=10)
    make_trainer(callbacks=[SampleGrid(25)], max_steps=1, limit_val_batches=0).fit(model, datamodule=data)
    assert model.labels.tolist() == [*range(10), *range(10), *range(5)]
    (path,) = (tmp_path / "grids").iterdir()
    assert pixels(path).shape == (3 * 30 - 2, 10 * 30 - 2)


def test_drawing_does_not_disturb_the_training(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    finals = []
    for callbacks in ([SampleGrid(4)], []):
        model = make_vae()
        torch.manual_seed(1)
        make_trainer(callbacks=callbacks, max_epochs=2, limit_val_batches=1).fit(model, datamodule=data)
        finals.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*finals)


@pytest.mark.parametrize("logger", [Pictures(), Board()], ids=["log_image", "add_image"])
def test_loggers_that_take_images_get_the_grid(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, logger: Numbers, tmp_path: Path
) -> None:
    trainer = make_trainer(callbacks=[SampleGrid(4)], logger=logger, max_steps=2, limit_val_batches=0)
    trainer.fit(make_vae(), datamodule=data)
    ((key, image, step),) = logger.logged
    assert (key, step) == ("samples", 2)
    written = pixels(next(tmp_path.rglob("images_*.png")))
    logged = pixels(Path(image))[..., None] if isinstance(image, str) else image
    assert (logged == written[..., None]).all()


@pytest.mark.parametrize("options", [{"num_samples": 0}, {"every_n_epochs": 0}])
def test_a_grid_of_nothing_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"^\w+=0: it must be at least 1$"):
        SampleGrid(**options)


def test_predictions_are_written_one_file_each(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    trainer = make_trainer(callbacks=[SampleWriter()])
    trainer.predict(make_vae(), data.loader("test", batch_size=4, limit=6), return_predictions=False)
    files = sorted((tmp_path / "samples").iterdir())
    assert len(files) == 6
    assert {pixels(path).shape for path in files} == {(28, 28)}
