"""Model, data and options that do not go together are refused in one sentence, before any work."""

import warnings
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_generative import GAN, VAE, ImageDataModule, evaluate_samples
from lit_generative.callbacks import Evaluate, LastCheckpoint
from lit_generative.drawing import draw_samples
from lit_generative.evaluation import Evaluator
from lit_generative.finite import check_finite_samples
from lit_generative.gan import HingeLoss
from lit_generative.latent_space.selection import LatentRequest
from lit_generative.latent_space.write import draw_latents
from lit_generative.nn import DCGANDiscriminator, DCGANGenerator, MLPDecoder, MLPDiscriminator, MLPEncoder, MLPGenerator
from lit_generative.vae import GaussianLikelihood

SHAPE = (1, 8, 8)
MakeTrainer = Callable[..., L.Trainer]
STAGES = ("fit", "validate", "test", "predict")


class Loaders(L.LightningDataModule):
    """A user's own data, which declares no more than it is given."""

    def __init__(self, x: Tensor, y: Tensor | None = None, batch_size: int = 16, **declared: Any) -> None:
        super().__init__()
        self.tensors, self.size = (x,) if y is None else (x, y), batch_size
        for name, value in declared.items():
            setattr(self, name, value)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(*self.tensors), batch_size=self.size)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def images(n: int = 32) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def labels(n: int = 32, classes: int = 3) -> Tensor:
    return torch.arange(n) % classes


def vae(num_classes: int | None = None, shape: tuple[int, int, int] = SHAPE) -> VAE:
    parts = MLPEncoder(shape, 4, (8,), num_classes), MLPDecoder(shape, 4, (8,), num_classes), GaussianLikelihood()
    return VAE(*parts, 4, num_classes=num_classes)


@pytest.fixture
def run(make_trainer: MakeTrainer) -> Callable[..., None]:
    """Run a model for a batch in a stage."""

    def in_stage(model: Any, data: Any, stage: str = "fit", **options: Any) -> None:
        limits = {f"limit_{name}_batches": 1 for name in ("train", "val", "test", "predict")}
        trainer = make_trainer(**({"max_epochs": 1} | limits | options))
        getattr(trainer, stage)(model, datamodule=data)

    return in_stage


# -------------------------------------------------------------------- model and data


@pytest.mark.parametrize("stage", STAGES)
def test_shapes_are_compared(run: Callable, stage: str) -> None:
    data = Loaders(torch.zeros(16, 3, 9, 8), image_shape=(3, 9, 8))
    with pytest.raises(
        ValueError, match=r"VAE is made for images of shape \(1, 8, 8\), but .*Loaders have \(3, 9, 8\)"
    ):
        run(vae(), data, stage)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("classes", "found"), [(2, "2"), (60, "60"), (None, "no")])
def test_numbers_of_classes_are_compared(run: Callable, stage: str, classes: int | None, found: str) -> None:
    data = Loaders(images(), labels(classes=2), image_shape=SHAPE, num_classes=classes)
    with pytest.raises(ValueError, match=rf"num_classes=3, but the data have {found} classes \(Loaders\)"):
        run(vae(3), data, stage)
    run(vae(), data, stage)  # of a model without classes none are asked


def test_names_of_classes_are_compared(run: Callable) -> None:
    model = vae(3)
    declared = {"num_classes": 3, "class_names": ["cat", "dog", "owl"]}
    run(model, Loaders(images(), labels(), **declared))
    run(model, Loaders(images(), labels(), **declared), "test")
    run(model, Loaders(images(), labels(), num_classes=3, class_names=["0", "1", "2"]), "test")
    with pytest.raises(ValueError, match="class 1 is 'dog' for VAE, which was trained so, but 'owl' in Loaders"):
        run(model, Loaders(images(), labels(), num_classes=3, class_names=["cat", "owl", "dog"]), "test")


def test_a_checkpoint_knows_its_classes_names(run: Callable, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(vae(3), datamodule=Loaders(images(), labels(), num_classes=3, class_names=["cat", "dog", "owl"]))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert VAE.load_from_checkpoint(tmp_path / "a.ckpt").class_names == ["cat", "dog", "owl"]


def test_latents_are_drawn_of_the_models_classes(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    data = Loaders(torch.zeros(8, 1, 28, 28) - 1, labels(8), num_classes=3)
    trainer.fit(vae(3, (1, 28, 28)), datamodule=data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"num_classes=3, but the data have 10 classes \(fashion-mnist\)"):
        draw_latents(tmp_path / "a.ckpt", tmp_path / "out", LatentRequest(), ImageDataModule(subset=20))
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------- the first batch


BATCHES: dict[str, tuple[Tensor, Tensor]] = {
    r"are in \[0, 255\], but should be in \[-1, 1\]: x / 127\.5 - 1": (((images() + 1) * 127.5).round(), labels()),
    r"are in \[-5, 4\], but should be in \[-1, 1\]: scale": (
        torch.linspace(-5, 4, 64).view(SHAPE).repeat(32, 1, 1, 1),
        labels(),
    ),
    "are uint8: give floats": (((images() + 1) * 127.5).byte(), labels()),
    "are bool: give floats": (images() > 0, labels()),
    "not finite, 16 of the first 16": (images() * nan, labels()),
    r"images have shape \(16, 8, 8\): give \(B, C, H, W\)": (images()[:, 0], labels()),
    r"images have shape \(3, 8, 8\), but the model is made for \(1, 8, 8\)": (images().expand(-1, 3, -1, -1), labels()),
    r"images have shape \(1, 4, 8\)": (images()[:, :, :4], labels()),
    "labels are float32: give the classes' numbers": (images(), labels().float()),
    r"labels have shape \(16, 3\): give \(16,\), y\.argmax\(1\)": (images(), nn.functional.one_hot(labels())),
    r"labels have shape \(16, 1\)": (images(), labels()[:, None]),
    "labels go from 0 to 3: the model's num_classes=3": (images(), labels(classes=4)),
    "labels go from -1 to 1": (images(), labels() - 1),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("message", BATCHES)
def test_the_first_batch_is_looked_at(run: Callable, stage: str, message: str) -> None:
    split = {"fit": "training", "validate": "validation", "predict": "prediction"}.get(stage, stage)
    with pytest.raises(
        ValueError, match=f"{split} {'labels' if message.startswith('labels') else 'images'}"
    ) as refused:
        run(vae(3), Loaders(*BATCHES[message], num_classes=3), stage)
    assert refused.match(message)


def test_validation_images_are_looked_at_in_training_too(run: Callable) -> None:
    data = Loaders(images())
    data.val_dataloader = lambda: DataLoader(TensorDataset(images() * 127.5))  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="validation images are in"):
        run(vae(), data)


def test_images_in_half_of_the_range_are_a_warning(run: Callable) -> None:
    with pytest.warns(UserWarning, match=r"training images are all in \[.*if 0 is black, give 2 x - 1"):
        run(vae(), Loaders((images() + 1) / 2), limit_val_batches=0)


def test_good_batches_pass_in_silence(run: Callable, recwarn: pytest.WarningsRecorder) -> None:
    run(vae(3), Loaders(images(), labels().int(), num_classes=3))
    run(vae(), Loaders(1.005 * images(), labels().float()))
    assert not [warning for warning in recwarn if "images" in str(warning.message) and "[" in str(warning.message)]


@pytest.mark.parametrize(("batch_size", "micro_batches"), [(1, 1), (4, 4), (5, 4)])
def test_batches_of_one_image_are_refused_for_batch_normalisation(
    run: Callable, batch_size: int, micro_batches: int
) -> None:
    networks = DCGANGenerator((1, 16, 16), 4, (8,)), MLPDiscriminator((1, 16, 16), (8,))
    model = GAN(*networks, HingeLoss(), 4, micro_batches=micro_batches)
    options = rf"batch_size \({batch_size}\) or micro_batches \({micro_batches}\)"
    with pytest.raises(ValueError, match=f"generator normalises batches, .* 1 image: change {options}"):
        run(model, Loaders(torch.zeros(16, 1, 16, 16) - 1, batch_size=batch_size))
    plain = MLPGenerator((1, 16, 16), 4, (8,)), DCGANDiscriminator((1, 16, 16), (8, 8), batch_norm=False)
    run(GAN(*plain, HingeLoss(), 4), Loaders(torch.zeros(16, 1, 16, 16) - 1, batch_size=1))


# -------------------------------------------------------------------- options that train nothing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 0}, r"trainer\.max_epochs=0: it must be at least 1"),
        ({"max_steps": 0}, r"trainer\.max_steps=0: it must be at least 1"),
        ({"limit_train_batches": 0}, r"trainer\.limit_train_batches=0: nothing would be learned"),
        ({"limit_train_batches": 0.0}, r"trainer\.limit_train_batches=0"),
        ({"gradient_clip_val": -1}, r"trainer\.gradient_clip_val=-1: it must be at least 0"),
        ({"gradient_clip_val": nan}, r"trainer\.gradient_clip_val=nan"),
        ({"accumulate_grad_batches": 0}, r"trainer\.accumulate_grad_batches=0: it must be at least 1"),
    ],
)
def test_a_run_that_would_learn_nothing_is_refused(run: Callable, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(vae(), Loaders(images()), **options)


# -------------------------------------------------------------------- the best state


def fit_with_checkpoints(make_trainer: MakeTrainer, model: Any, folder: Path, **best: Any) -> set[str]:
    """Train for two epochs as the command line does, and return the checkpoints' names."""
    checkpoint = ModelCheckpoint(folder, filename="best", enable_version_counter=False, **best)
    last = LastCheckpoint()
    last.dirpath = str(folder)
    evaluate = Evaluate(Evaluator("fashion", num_samples=6), at_end=False)
    trainer = make_trainer(max_epochs=2, enable_checkpointing=True, callbacks=[checkpoint, last, evaluate])
    trainer.fit(model, datamodule=ImageDataModule(subset=60, batch_size=30))
    return {path.name for path in folder.iterdir()}


def test_a_game_has_no_best_state_without_a_measure_of_quality(
    make_gan: Callable[..., GAN], make_trainer: MakeTrainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit_with_checkpoints(make_trainer, make_gan(), tmp_path / "a", monitor="val/loss") == {"last.ckpt"}
    assert "val/loss of a GAN is no measure of quality: there will be no best.ckpt" in capsys.readouterr().out
    chosen = fit_with_checkpoints(make_trainer, make_gan(), tmp_path / "b", monitor="val/generator_loss")
    assert chosen == {"last.ckpt", "best.ckpt"}  # what a user chose knowingly


def test_a_bound_on_the_likelihood_is_a_measure(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    assert fit_with_checkpoints(make_trainer, make_vae(), tmp_path / "a", monitor="val/loss") == {
        "last.ckpt",
        "best.ckpt",
    }


# -------------------------------------------------------------------- what is not finite, and what is too small


@pytest.fixture
def diverged(make_trainer: MakeTrainer, tmp_path: Path) -> Path:
    """Return a checkpoint with a weight that is not finite."""
    trainer = make_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(vae(), datamodule=Loaders(images()))
    trainer.save_checkpoint(tmp_path / "diverged.ckpt")
    checkpoint = torch.load(tmp_path / "diverged.ckpt", weights_only=True)
    checkpoint["state_dict"]["decoder.head.bias"][3] = nan
    torch.save(checkpoint, tmp_path / "diverged.ckpt")
    return tmp_path / "diverged.ckpt"


def test_nothing_is_drawn_from_weights_that_are_not_finite(diverged: Path, tmp_path: Path) -> None:
    message = r"diverged\.ckpt: decoder\.head\.bias has values that are not finite"
    with pytest.raises(FloatingPointError, match=message):
        draw_samples(diverged, tmp_path / "out", num_samples=2)
    with pytest.raises(FloatingPointError, match=message):
        draw_latents(diverged, tmp_path / "out", LatentRequest())
    with pytest.raises(FloatingPointError, match=message):
        evaluate_samples(diverged, real=diverged, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.warns(UserWarning, match=r"2 of 2 samples .* not finite; the weight decoder\.head\.bias is not"):
        VAE.load_from_checkpoint(diverged).sample(2)


def test_samples_that_are_not_finite_are_counted() -> None:
    broken = torch.zeros(3, *SHAPE)
    broken[1] = nan
    with pytest.raises(FloatingPointError, match=r"checkpoint a: 1 of 3 samples have values that are not finite"):
        check_finite_samples(broken, "a")
    check_finite_samples(broken[:1], "a")


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_few_test_images_do_not_fail_a_finished_run(
    make_trainer: MakeTrainer, n: int, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Loaders(torch.rand(32, 1, 28, 28) * 2 - 1)
    few = DataLoader(TensorDataset(torch.rand(n, 1, 28, 28) * 2 - 1))
    data.val_dataloader = data.test_dataloader = lambda: few  # type: ignore[method-assign]
    evaluate = Evaluate(Evaluator("fashion", num_samples=8), every_n_epochs=1)
    trainer = make_trainer(max_epochs=1, callbacks=[evaluate])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = vae(shape=(1, 28, 28))
        trainer.fit(model, datamodule=data)
        trainer.test(model, datamodule=data, verbose=False)
    said = f"The quality of samples will not be measured: Loaders has {n} val images" in capsys.readouterr().out
    assert said == (n < 6)
    assert evaluate.measures_quality == (n >= 6)
