"""Averages by powers of time, and those that are made of them afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from resuming import assert_resumes
from torch import Tensor

from lit_generative import GAN, VAE, ImageDataModule
from lit_generative.callbacks import PowerEMA, reconstruct
from lit_generative.callbacks.power_ema import exponent, mixture

MakeTrainer = Callable[..., L.Trainer]


class Keep(L.Callback):
    """Keeps the trained weights after each step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.weights.append({name: p.detach().clone() for name, p in pl_module.named_parameters()})


def test_exponents_are_theirs() -> None:
    assert exponent(0.05) == pytest.approx(16.97, abs=0.01)  # Karras et al. 2024, section 3.1
    assert exponent(0.10) == pytest.approx(6.94, abs=0.01)
    for sigma_rel in (0.01, 0.2, 0.28):
        gamma = exponent(sigma_rel)
        t = (torch.arange(200_000).double() + 0.5) / 200_000
        p = t**gamma / (t**gamma).sum()
        mean = (p * t).sum()
        assert ((p * (t - mean) ** 2).sum().sqrt()).item() == pytest.approx(sigma_rel, rel=1e-3)


def profile(gamma: float, t: int, steps: int) -> Tensor:
    """Return the weight of each step in an average that ends after ``t`` of ``steps``, by the update's definition."""
    weights = torch.zeros(steps).double()
    for i in range(1, t + 1):
        beta = (1 - 1 / i) ** (gamma + 1)
        weights *= beta
        weights[i - 1] += 1 - beta
    return weights


@pytest.mark.parametrize("sigma_rel", [0.04, 0.05, 0.075, 0.1, 0.15])
def test_mixtures_of_snapshots_weight_steps_as_the_wanted_average(sigma_rel: float) -> None:
    steps, gammas = 400, (exponent(0.05), exponent(0.1))
    known = [(t, gamma) for t in range(20, steps + 1, 20) for gamma in gammas]
    shares = mixture(known, (steps, exponent(sigma_rel)))
    mixed = sum(share * profile(gamma, t, steps) for share, (t, gamma) in zip(shares, known, strict=True))
    wanted = profile(exponent(sigma_rel), steps, steps)
    assert mixed.sum().item() == pytest.approx(1, abs=0.01)
    assert (mixed - wanted).norm() < 0.03 * wanted.norm()


@pytest.mark.parametrize("end", [100, 119, 137])
def test_a_mixture_that_ends_between_snapshots_still_is_an_average(end: int) -> None:
    known = [(steps, exponent(sigma_rel)) for steps in range(20, end + 1, 20) for sigma_rel in (0.05, 0.1)]
    assert sum(mixture(known, (end, exponent(0.1)))) == pytest.approx(1)


@pytest.mark.parametrize("family", ["vae", "gan"])
def test_an_average_made_afterwards_is_the_one_that_was_not_kept(
    family: str, make_vae: Callable[..., VAE], make_gan: Callable[..., GAN], make_trainer: MakeTrainer
) -> None:
    model: Any = make_vae() if family == "vae" else make_gan()
    kept = Keep()
    trainer = make_trainer(max_epochs=8, limit_val_batches=0, callbacks=[PowerEMA(every_n_steps=4), kept])
    trainer.fit(model, datamodule=ImageDataModule(subset=200, batch_size=20))
    snapshots = sorted((Path(trainer.log_dir or trainer.default_root_dir) / "power_ema").glob("*.safetensors"))
    assert len(snapshots) == 2 * len(kept.weights) / 4
    start, *_ = kept.weights
    for sigma_rel in (0.05, 0.08):
        weights = profile(exponent(sigma_rel), len(kept.weights), len(kept.weights))
        found = reconstruct(snapshots, sigma_rel)
        for name in start:
            exact = sum(w * step[name].double() for w, step in zip(weights.tolist(), kept.weights, strict=True))
            moved = (kept.weights[-1][name] - start[name]).norm()
            assert (found[name] - exact).norm() < 0.05 * moved + 1e-5
    model.load_state_dict(found, strict=False)
    assert all(torch.equal(p, found[name]) for name, p in model.named_parameters())


def test_averages_of_half_weights_move_by_less_than_their_digits(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer
) -> None:
    power = PowerEMA((0.01, 0.02), every_n_steps=4)
    trainer = make_trainer(max_epochs=1, limit_val_batches=0, callbacks=[power], precision="bf16-true")
    trainer.fit(model := make_vae(), datamodule=ImageDataModule(subset=80, batch_size=20))
    folder = Path(trainer.log_dir or trainer.default_root_dir) / "power_ema"
    found = reconstruct(sorted(folder.glob("*.safetensors")), 0.015)
    assert next(model.parameters()).dtype == torch.bfloat16
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in found.values())


def test_a_resumed_run_goes_on_exactly(make_vae: Callable[..., VAE], make_trainer: MakeTrainer) -> None:
    def make(**options: Any) -> L.Trainer:
        return make_trainer(**options | {"callbacks": [*options.get("callbacks", ()), PowerEMA(every_n_steps=5)]})

    end = assert_resumes(make_vae, make, (3, 8))
    assert end["callbacks"]["PowerEMA"]["steps"] == 12


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    for make, message in (
        (lambda: PowerEMA((0.1, 0.1)), r"sigma_rels=\[0.1, 0.1\]: others are made of at least two"),
        (lambda: PowerEMA((0.1, 0.5)), r"sigma_rel=0.5: .*0.289"),
        (lambda: PowerEMA(every_n_steps=0), "every_n_steps=0"),
        (lambda: PowerEMA(every_n_steps=2.5), r"every_n_steps=2.5: it must be a whole number"),  # type: ignore[arg-type]
        (lambda: reconstruct([], 0.1), "steps=None: there are no snapshots"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
