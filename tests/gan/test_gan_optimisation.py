"""Each network has its own gradients: how large they are, whence they come, and that they are computed once."""

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_generative import ImageDataModule
from lit_generative.gan import GAN, R1, R2, GradientPenalty, NonSaturatingLoss, RelativisticLoss, ZeroCentredPenalty
from lit_generative.nn import MLPDiscriminator

MakeGAN = Callable[..., GAN]
MakeTrainer = Callable[..., L.Trainer]
SGD = functools.partial(torch.optim.SGD, lr=0.5, momentum=0.5)


@pytest.fixture(scope="module")
def data() -> ImageDataModule:
    return ImageDataModule(subset=200, batch_size=20)


class Watched(GAN):
    """Notes the norms of both networks' gradients before each optimizer's step: unclipped, and as they are used."""

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        name = ("discriminator", "generator")[self.trainer.optimizers.index(optimizer)]
        others = self.generator if name == "discriminator" else self.discriminator
        assert all(p.grad is None for p in others.parameters()), "a network has a gradient in the other's step"
        unclipped = norm(optimizer)
        super().on_before_optimizer_step(optimizer)
        self.norms: dict[str, list[tuple[float, float]]] = getattr(self, "norms", {})
        self.norms.setdefault(name, []).append((unclipped, norm(optimizer)))


def norm(optimizer: Optimizer) -> float:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return torch.cat([gradient.flatten() for gradient in gradients]).norm().item()


def in_precision(precision: str) -> dict[str, Any]:
    """Return the trainer's option; gradients of 16-mixed are scaled by 65536 on the CPU too."""
    if precision != "16-mixed":
        return {"precision": precision}
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))]}


def train(make_trainer: MakeTrainer, model: GAN, data: ImageDataModule, rounds: int, **options: Any) -> L.Trainer:
    trainer = make_trainer(max_steps=rounds, limit_val_batches=0, **options)
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == rounds
    return trainer


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("clipped", ["generator", "discriminator"])
def test_a_clip_bounds_the_gradient_of_its_network_alone(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule, precision: str, clipped: str
) -> None:
    def norms(precision: str, **clip: float) -> dict[str, list[tuple[float, float]]]:
        model = make_gan(Watched, penalties=[R1(1.0), R2(1.0, every=2)], **clip)
        train(make_trainer, model, data, 3, **in_precision(precision))
        return model.norms  # type: ignore[return-value]

    found, free = norms(precision, **{f"{clipped}_clip": 0.03}), norms("32-true")
    assert found[clipped][0][0] == pytest.approx(free[clipped][0][0], rel=0.02)  # so it sees them unscaled
    for name, both in found.items():
        for unclipped, used in both:
            assert unclipped > 0.1
            assert used == pytest.approx(0.03 if name == clipped else unclipped, rel=1e-3)


@pytest.mark.parametrize("penalty", [R1, R2, GradientPenalty, ZeroCentredPenalty])
@pytest.mark.parametrize("convolutions", [False, True])
def test_penalties_train_in_low_precision(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule, penalty: type, convolutions: bool
) -> None:
    model = make_gan(Watched, penalties=[penalty(1.0)], convolutions=convolutions)
    train(make_trainer, model, data, 2, precision="bf16-mixed")
    assert all(0 < unclipped < 1e4 for both in model.norms.values() for unclipped, _ in both)  # type: ignore[union-attr, operator]
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("options", [{}, {"discriminator_steps": 2}], ids=["each-round", "every-other-round"])
@pytest.mark.parametrize("loss", [RelativisticLoss, NonSaturatingLoss])
def test_micro_batches_make_the_same_step(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule, loss: type, options: dict[str, int]
) -> None:
    def trained(micro_batches: int) -> GAN:
        penalties = [R1(0.1), R2(0.1, every=2)]
        options_of_both = {"generator_optimizer": SGD, "discriminator_optimizer": SGD, **options}
        model = make_gan(loss=loss(), penalties=penalties, micro_batches=micro_batches, **options_of_both)
        train(make_trainer, model, data, 6)
        return model

    whole, start = trained(1).state_dict(), make_gan().state_dict()
    for network in ("generator", "discriminator"):
        assert max((whole[n] - value).abs().max() for n, value in start.items() if n.startswith(network)) > 1e-2
    for micro_batches in (3, 50):  # uneven parts; more parts than images
        torch.testing.assert_close(trained(micro_batches).state_dict(), whole, rtol=1e-5, atol=1e-6)


def test_micro_batches_train_both_networks_in_low_precision(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    model = make_gan(Watched, micro_batches=2)
    train(make_trainer, model, data, 2, precision="bf16-mixed")
    # weights that autocast keeps from a pass without gradients would get none
    assert all(unclipped > 0.1 for both in model.norms.values() for unclipped, _ in both)  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("discriminator_steps", [1, 2])
def test_no_network_gets_gradients_in_the_others_step(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule, discriminator_steps: int
) -> None:
    model = make_gan(Watched, penalties=[R1(1.0)], discriminator_steps=discriminator_steps)
    train(make_trainer, model, data, 4)  # Watched looks at them
    assert {name: len(both) for name, both in model.norms.items()} == {  # type: ignore[operator]
        "discriminator": 4,
        "generator": 4 // discriminator_steps,
    }
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_what_the_user_froze_stays_frozen(make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    model = make_gan(penalties=[R1(1.0)])
    assert isinstance(model.discriminator, MLPDiscriminator)
    first, head = model.discriminator.layers[0].requires_grad_(False), model.discriminator.head
    before = [[p.detach().clone() for p in module.parameters()] for module in (first, head)]
    train(make_trainer, model, data, 3)
    assert not any(p.requires_grad for p in first.parameters())
    assert all(p.requires_grad for p in head.parameters())
    assert all(torch.equal(p, old) for p, old in zip(first.parameters(), before[0], strict=True))
    assert any(not torch.equal(p, old) for p, old in zip(head.parameters(), before[1], strict=True))


def test_each_network_has_its_own_optimizer(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    model = make_gan(generator_optimizer=functools.partial(torch.optim.Adamax, lr=3e-3), discriminator_optimizer=SGD)
    first, second = train(make_trainer, model, data, 1).optimizers
    assert (type(first), type(second)) == (torch.optim.SGD, torch.optim.Adamax)
    assert (first.defaults["lr"], second.defaults["lr"]) == (0.5, 3e-3)
    for optimizer, network in ((first, model.discriminator), (second, model.generator)):
        assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in network.parameters()}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[True]] * 6),
        ({"discriminator_steps": 3}, [[False], [False], [True]] * 2),
        ({"micro_batches": 2}, [[False, False, True, True]] * 6),
    ],
    ids=["plain", "several-steps", "micro-batches"],
)
def test_fakes_are_generated_once_and_with_a_graph_only_where_it_serves(
    make_gan: MakeGAN,
    make_trainer: MakeTrainer,
    data: ImageDataModule,
    options: dict[str, int],
    expected: list[list[bool]],
) -> None:
    model = make_gan(**options)
    seen: dict[int, list[bool]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], images: Tensor) -> None:
        seen.setdefault(model.global_step, []).append(images.requires_grad)

    model.generator.register_forward_hook(note)
    train(make_trainer, model, data, 6)
    assert list(seen.values()) == expected


def test_lazy_penalties_are_due_in_their_rounds(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    model = make_gan(loss=NonSaturatingLoss(), penalties=[R1(1.0, every=3), R2(1.0, every=2)])
    judged: Counter[int] = Counter()
    model.discriminator.register_forward_hook(lambda *_: judged.update([model.global_step]))
    train(make_trainer, model, data, 6)
    # real and fake, then fake for the generator; and one more for each penalty
    assert [judged[step] for step in range(6)] == [3 + (step % 3 == 0) + (step % 2 == 0) for step in range(6)]
