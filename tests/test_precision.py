"""Numbers of other formats: every family trains, draws and resumes with weights of 16 and of 64 bits."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from known_models import MODELS
from resuming import assert_identical
from torch import Tensor, nn

from lit_generative import GenerativeModule, ImageDataModule
from lit_generative.callbacks import EMA
from lit_generative.numerics import FullPrecisionModule

DTYPES = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}
MakeTrainer = Callable[..., L.Trainer]


def train(model: GenerativeModule, trainer: L.Trainer, **options: Any) -> GenerativeModule:
    trainer.fit(model, datamodule=ImageDataModule(subset=60, batch_size=20), **options)
    return model


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_every_model_trains_and_draws(
    make: Callable[[], GenerativeModule], precision: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_trainer(max_steps=3, precision=precision, limit_val_batches=1)
    model = train(make(), trainer)
    assert model.dtype == DTYPES[precision]
    assert all(torch.isfinite(p).all() for p in model.parameters())
    samples = model.sample(3)
    assert samples.dtype == torch.float32
    assert samples.isfinite().all()
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    loaded = GenerativeModule.load_from_checkpoint(tmp_path / "end.ckpt")
    again = loaded.sample(3, generator=torch.Generator().manual_seed(1))
    same = model.sample(3, generator=torch.Generator().manual_seed(1))
    if precision != "64-true":  # whose noise is of another kind
        assert (again - same).abs().mean() < 0.1, "what a checkpoint draws is what was trained, up to rounding"


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_that_was_cast_draws_what_it_drew(make: Callable[[], GenerativeModule], dtype: torch.dtype) -> None:
    def draw(model: GenerativeModule) -> Tensor:
        return model.sample(4, generator=torch.Generator().manual_seed(0))

    model = make()
    if dtype == torch.float64:
        assert draw(model.to(dtype)).isfinite().all()
    else:
        before = draw(model)
        assert (draw(model.to(dtype)) - before).abs().mean() < 0.05
    assert torch.get_default_dtype() == torch.float32


def test_images_and_losses_stay_exact_with_half_weights(
    make_vae: Callable[..., Any], make_trainer: MakeTrainer
) -> None:
    seen: list[Tensor] = []
    model = make_vae()
    losses = model.losses

    def look(x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        found = losses(x, y)
        seen.extend([x, found["loss"]])
        return found

    model.losses = look
    train(model, make_trainer(max_steps=2, precision="bf16-true", limit_val_batches=0))
    assert {tensor.dtype for tensor in seen} == {torch.float32}
    levels = seen[0].add(1).mul(127.5)
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)


def test_what_needs_digits_keeps_them() -> None:
    class Sums(FullPrecisionModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.sums = nn.Linear(2, 2), nn.Buffer(torch.full((3,), 1 / 3))

    module = nn.Sequential(Sums(), nn.Linear(2, 2)).to(torch.bfloat16)
    assert module[0].inner.weight.dtype == module[0].sums.dtype == torch.float32
    assert torch.equal(module[0].sums, torch.full((3,), 1 / 3))
    assert module[1].weight.dtype == torch.bfloat16
    assert module.double()[0].sums.dtype == torch.float64


def test_the_average_of_half_weights_moves_and_resumes(
    make_vae: Callable[..., Any], make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def run(steps: int, ckpt_path: Path | None, name: str) -> dict[str, Any]:
        model = make_vae()
        model.make_optimizer = functools.partial(torch.optim.SGD, lr=1e-4)
        trainer = make_trainer(
            max_steps=steps, precision="bf16-true", limit_val_batches=0, callbacks=[EMA(0.999, warmup=False)]
        )
        train(model, trainer, ckpt_path=ckpt_path, weights_only=True)
        trainer.save_checkpoint(tmp_path / name)
        return torch.load(tmp_path / name, weights_only=True)

    whole = run(6, None, "whole.ckpt")
    run(2, None, "part.ckpt")
    resumed = run(6, tmp_path / "part.ckpt", "resumed.ckpt")
    for part in ("state_dict", "callbacks", "optimizer_states"):
        assert_identical(resumed[part], whole[part], part)
    start = make_vae().state_dict()
    moved = [not torch.equal(value, start[name].bfloat16().float()) for name, value in whole["state_dict"].items()]
    assert any(moved), "a thousandth of a step is less than bfloat16 can tell"
