"""Training a ladder VAE: updates that are skipped, clipping, and checkpoints."""

import functools
import math
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from lit_generative import GenerativeModule, ImageDataModule
from lit_generative.nn import LadderNetwork
from lit_generative.vae import DiscretizedLogisticLikelihood, LadderVAE
from lit_generative.vae import ladder as module


class Poisoned(LadderVAE):
    """Gradients are a thousand times too large, or not finite, at the second and third of every four steps."""

    factor = 1e3

    def losses(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        losses = super().losses(x, y)
        if self.training and self.trainer.global_step % 4 in (1, 2):
            losses["loss"] = losses["loss"] * self.factor
        return losses


class NotFinite(Poisoned):
    factor = math.nan


class Overflowing(Poisoned):
    factor = 1e30  # of which the gradients are finite, and the norm is not


class Watch(L.Callback):
    """Remembers the weights after each step."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.counts: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any) -> None:
        self.weights.append(torch.cat([p.detach().flatten() for p in pl_module.parameters()]))
        self.counts.append(float(pl_module.skipped_updates))  # type: ignore[arg-type]


def train(
    cls: type[LadderVAE], make_trainer: Callable[..., L.Trainer], data: ImageDataModule, steps: int, **options: Any
) -> tuple[LadderVAE, Watch, L.Trainer]:
    torch.manual_seed(0)
    optimizer = functools.partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1)
    model = cls(
        LadderNetwork((1, 28, 28), "7x1,1x1", [8, 8], hidden=4, latent_channels=2),
        DiscretizedLogisticLikelihood(),
        optimizer=optimizer,
        skip_above=options.pop("skip_above", None),
    )
    watch = Watch()
    trainer = make_trainer(max_steps=steps, callbacks=[watch], log_every_n_steps=1, limit_val_batches=0, **options)
    trainer.fit(model, data)
    return model, watch, trainer


@pytest.mark.parametrize(("cls", "skip_above"), [(Poisoned, 2e5), (NotFinite, None), (Overflowing, None)])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_an_update_that_is_skipped_leaves_the_weights_alone(
    cls: type[LadderVAE],
    skip_above: float | None,
    precision: str,
    clip: float | None,
    make_trainer: Callable[..., L.Trainer],
    data: ImageDataModule,
) -> None:
    options = {"precision": precision, "gradient_clip_val": clip, "skip_above": skip_above}
    _, watch, trainer = train(cls, make_trainer, data, 6, **options)
    moved = [not torch.equal(a, b) for a, b in zip(watch.weights[:-1], watch.weights[1:], strict=True)]
    assert moved == [False, False, True, True, False]
    assert watch.counts == [0, 1, 2, 2, 2, 3]
    assert trainer.global_step == 6
    assert trainer.callback_metrics["skipped_updates"] == 3
    assert torch.isfinite(watch.weights[-1]).all()
    # neither have they moved the optimizer's averages
    steps = {float(state["step"]) for state in trainer.optimizers[0].state.values()}
    assert steps == {3.0}


def test_scaled_gradients_are_refused(make_trainer: Callable[..., L.Trainer], data: ImageDataModule) -> None:
    network = LadderNetwork((1, 28, 28), "7x1", [8], hidden=4)
    optimizer = functools.partial(torch.optim.AdamW, fused=True)
    model = LadderVAE(network, DiscretizedLogisticLikelihood(), optimizer=optimizer)
    trainer = make_trainer(max_steps=1, plugins=[MixedPrecision("16-mixed", "cpu")])
    with pytest.raises(ValueError, match=r"^optimizer: AdamW with fused keeps its gradients scaled under 16-mixed"):
        trainer.fit(model, data)


def test_a_gradient_below_the_threshold_is_used(make_trainer: Callable[..., L.Trainer], data: ImageDataModule) -> None:
    _, watch, _ = train(Poisoned, make_trainer, data, 4, skip_above=1e12)
    assert watch.counts == [0, 0, 0, 0]


def test_the_trainer_clips_what_is_not_skipped(make_trainer: Callable[..., L.Trainer], data: ImageDataModule) -> None:
    norms = []

    class Clipped(LadderVAE):
        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            gradients = [p.grad for p in self.parameters() if p.grad is not None]
            norms.append(torch.nn.utils.get_total_norm(gradients).item())

    train(Clipped, make_trainer, data, 2, gradient_clip_val=0.5)
    assert norms == pytest.approx([0.5, 0.5], rel=1e-3)


def test_a_run_that_skips_everything_ends(
    make_trainer: Callable[..., L.Trainer], data: ImageDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 3)
    message = r"^3 updates in a row were skipped, the last at step 2 for a gradient of norm .* \(skip_above=0.001\)"
    with pytest.raises(FloatingPointError, match=message):
        train(LadderVAE, make_trainer, data, 10, skip_above=1e-3)


def test_a_checkpoint_gives_the_model_back(
    make_trainer: Callable[..., L.Trainer], data: ImageDataModule, tmp_path: Any
) -> None:
    model, _, trainer = train(LadderVAE, make_trainer, data, 2, precision="bf16-mixed")
    trainer.save_checkpoint(tmp_path / "ladder.ckpt")
    loaded = GenerativeModule.load_from_checkpoint(tmp_path / "ladder.ckpt")
    assert type(loaded) is LadderVAE
    draws = [m.sample(4, generator=torch.Generator().manual_seed(3)) for m in (model, loaded)]
    assert torch.equal(*draws)


def test_a_ladder_learns_real_images(data: ImageDataModule) -> None:
    torch.manual_seed(0)
    model = LadderVAE(
        LadderNetwork((1, 28, 28), "7x1,1x1", [16, 16], hidden=8, latent_channels=4), DiscretizedLogisticLikelihood()
    )
    x = next(iter(data.loader("test", batch_size=6)))["image"]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    before = model.losses(x)["bits_per_dim"].mean().item()
    for _ in range(60):
        optimizer.zero_grad()
        model.losses(x)["loss"].mean().backward()
        optimizer.step()
    assert model.losses(x)["bits_per_dim"].mean().item() < before - 2
    assert model.losses(x)["kl"].mean().item() > 1  # the latents are used
