"""What a GAN is to those who use it, and to those who override a hook of it."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from signatures import meets
from torch import Tensor
from torch.nn import functional as F
from users_gans import ClippedWGAN, LSGANWithNoise

from lit_generative import GenerativeModule, ImageDataModule
from lit_generative.callbacks import EMA
from lit_generative.contracts import Diagnosable, InterpolatesSamples
from lit_generative.gan import (
    GAN,
    R1,
    AdaptiveAugment,
    DiffAugment,
    GradientPenalty,
    LeastSquaresLoss,
    NonSaturatingLoss,
    RelativisticLoss,
    WassersteinLoss,
)

MakeGAN = Callable[..., GAN]
MakeTrainer = Callable[..., L.Trainer]
CASES = pytest.mark.parametrize("convolutions", [False, True])
LABELS = pytest.mark.parametrize("num_classes", [None, 10])


@pytest.fixture(scope="module")
def data() -> ImageDataModule:
    return ImageDataModule(subset=200, batch_size=20)


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    return next(iter(ImageDataModule().loader("test", batch_size=6)))


def source(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- the contract


@CASES
@LABELS
def test_losses_are_those_of_the_logits(
    make_gan: MakeGAN, batch: dict[str, Tensor], convolutions: bool, num_classes: int | None
) -> None:
    model = make_gan(num_classes=num_classes, convolutions=convolutions, loss=NonSaturatingLoss()).eval()
    x, y = model.unpack(batch)
    torch.manual_seed(3)
    losses = model.losses(x, y)
    torch.manual_seed(3)
    real, fake = model.discriminator(x, y), model.discriminator(model.generator(torch.randn(6, 8), y), y)
    torch.testing.assert_close(losses["discriminator_loss"], F.softplus(-real) + F.softplus(fake))
    torch.testing.assert_close(losses["generator_loss"], F.softplus(-fake))
    torch.testing.assert_close(losses["loss"], losses["discriminator_loss"] + losses["generator_loss"])
    assert {value.shape for value in losses.values()} == {(6,)}


@pytest.mark.parametrize("stage", ["val", "test"])
def test_losses_are_logged_in_validation_and_test(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule, stage: str
) -> None:
    model = make_gan(num_classes=10, augment=AdaptiveAugment(DiffAugment()), convolutions=True)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = make_trainer(limit_val_batches=1, limit_test_batches=1)
    (trainer.validate if stage == "val" else trainer.test)(model, datamodule=data, verbose=False)
    names = {f"{stage}/loss", f"{stage}/discriminator_loss", f"{stage}/generator_loss"}
    assert names <= trainer.callback_metrics.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@CASES
@LABELS
def test_samples_are_images_and_the_generator_decides_them(
    make_gan: MakeGAN, convolutions: bool, num_classes: int | None
) -> None:
    model = make_gan(num_classes=num_classes, convolutions=convolutions)
    y = None if num_classes is None else torch.arange(5)
    images, again, others = (model.sample(5, y, generator=source(seed)) for seed in (1, 1, 2))
    assert images.shape == (5, 1, 28, 28)
    assert images.abs().max() <= 1
    assert torch.equal(images, again)
    assert not torch.equal(images, others)


def test_labels_reach_both_networks(make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    model = make_gan(num_classes=10, penalties=[R1(1.0)], micro_batches=2)
    seen: dict[str, list[Tensor]] = {"generator": [], "discriminator": []}
    for name, labels in seen.items():
        model.get_submodule(name).register_forward_pre_hook(lambda _, inputs, kept=labels: kept.append(inputs[1]))
    expected: list[Tensor] = []
    model.on_train_batch_end = lambda outputs, batch, i: expected.append(batch["label"])  # type: ignore[assignment]
    make_trainer(max_steps=1, limit_val_batches=0).fit(model, datamodule=data)
    first, second = expected[0].split(10)
    for name, passes in (("generator", [first, second] * 2), ("discriminator", [first] * 3 + [second] * 3)):
        for labels, correct in zip(seen[name], passes, strict=False):  # the generator's step comes after these
            assert torch.equal(labels, correct)
    y = torch.arange(10)
    images = [model.sample(10, labels, generator=source()) for labels in (y, y.flip(0))]
    assert not torch.equal(*images)
    with pytest.raises(ValueError, match="a model of classes needs labels"):
        model.sample(3)


def test_a_checkpoint_gives_back_model_and_average(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    augment = AdaptiveAugment(DiffAugment(["cutout"], 0.5), target=0.3)
    optimizers = {"generator_optimizer": partial(torch.optim.Adam, lr=1e-2), "generator_clip": 2.0}
    penalties = [GradientPenalty(3.0, every=4), R1(0.5)]
    model = make_gan(loss=LeastSquaresLoss(-1, 1, 0.5), penalties=penalties, augment=augment, **optimizers)
    trainer = make_trainer(max_steps=4, limit_val_batches=0, callbacks=[EMA(0.9, part="generator")])
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = GenerativeModule.load_from_checkpoint(tmp_path / "model.ckpt")
    assert type(loaded) is GAN
    assert loaded.weights == "ema 0.9 of generator"
    assert torch.equal(loaded.sample(5, generator=source()), model.sample(5, generator=source()))
    raw = torch.load(tmp_path / "model.ckpt", weights_only=True)["callbacks"]["EMA"]["raw"]
    assert not torch.equal(raw[0], next(loaded.generator.parameters()))
    assert [(type(p), p.weight, p.every) for p in loaded.penalties] == [(GradientPenalty, 3.0, 4), (R1, 0.5, 1)]
    assert isinstance(loaded.loss, LeastSquaresLoss)
    assert isinstance(loaded.augment, AdaptiveAugment)
    assert (loaded.loss.c, loaded.augment.target, loaded.augment.augmentation.policy) == (0.5, 0.3, ("cutout",))
    assert loaded.clips == (None, 2.0)
    assert loaded.make_optimizers[1](loaded.generator.parameters()).defaults["lr"] == 1e-2


@pytest.mark.parametrize("protocol", [InterpolatesSamples, Diagnosable])
def test_others_may_ask_for_paths_and_a_diagnosis(make_gan: MakeGAN, protocol: type) -> None:
    assert isinstance(make_gan(), protocol)
    assert meets(GAN, protocol)


# ---------------------------------------------------------------- diagnosis


@CASES
@LABELS
def test_a_diagnosis_leaves_no_trace(
    make_gan: MakeGAN, batch: dict[str, Tensor], convolutions: bool, num_classes: int | None
) -> None:
    model = make_gan(num_classes=num_classes, convolutions=convolutions, augment=AdaptiveAugment(DiffAugment()))
    x, y = model.unpack(batch)
    model.generator.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, random = [module.training for module in model.modules()], torch.get_rng_state()
    with torch.inference_mode():
        inside = model.diagnose(x * 1, None if y is None else y * 1)  # such tensors autograd refuses to save
    found = model.diagnose(x, y)
    for name, value in found.items():
        assert value.shape == (6,)
        assert not value.requires_grad
        torch.testing.assert_close(inside[name], value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("loss", [NonSaturatingLoss(), RelativisticLoss()], ids=["non-saturating", "relativistic"])
def test_a_diagnosis_is_what_the_generator_learns_from(
    make_gan: MakeGAN, batch: dict[str, Tensor], loss: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = make_gan(loss=loss).eval(), batch["image"]
    z = torch.randn(6, 8, generator=source())
    monkeypatch.setattr(model, "sample_latent", lambda n: z)
    found, fake = model.diagnose(x), model.generator(z).detach().requires_grad_()
    real_logits, fake_logits = model.discriminator(x), model.discriminator(fake)
    margin = fake_logits - real_logits if loss.sees_real else fake_logits
    slope = torch.sigmoid(-margin)  # of the loss in the fake logit, without its sign
    (of_logit,) = torch.autograd.grad(fake_logits.sum(), fake)
    torch.testing.assert_close(found["real_logits"], real_logits)
    torch.testing.assert_close(found["fake_logits"], fake_logits)
    torch.testing.assert_close(found["generator_gradient"], slope * of_logit.flatten(1).norm(dim=1))


@CASES
def test_a_diagnosis_works_in_validation(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule, convolutions: bool
) -> None:
    model = make_gan(num_classes=10, convolutions=convolutions)
    found: list[dict[str, Tensor]] = []

    def look(outputs: Any, batch: dict[str, Tensor], batch_idx: int) -> None:
        found.append(model.diagnose(*model.unpack(batch)))

    model.on_validation_batch_end = look  # type: ignore[assignment]
    make_trainer(max_steps=4, limit_val_batches=1, val_check_interval=2, precision="bf16-mixed").fit(
        model, datamodule=data
    )
    assert len(found) == 2
    assert all((values["generator_gradient"] > 0).all() for values in found)


# ---------------------------------------------------------------- hooks


@pytest.mark.parametrize(("cls", "loss"), [(LSGANWithNoise, LeastSquaresLoss), (ClippedWGAN, WassersteinLoss)])
def test_a_users_game_is_a_subclass_of_ten_lines(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule, cls: type[GAN], loss: type
) -> None:
    model = make_gan(cls, loss=loss())
    before = [p.detach().clone() for p in model.generator.parameters()]
    make_trainer(max_steps=3, limit_val_batches=1).fit(model, datamodule=data)
    assert not any(torch.equal(p, old) for p, old in zip(model.generator.parameters(), before, strict=True))
    largest = max(p.abs().max() for p in model.discriminator.parameters())
    assert (largest <= 0.01) == (cls is ClippedWGAN)
    assert len([line for line in inspect.getsource(cls).splitlines() if line.strip()]) <= 10
