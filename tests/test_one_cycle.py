"""The learning rate has one owner, the optimizer."""

import functools
from collections.abc import Callable

import lightning as L
import pytest
import torch
from resuming import assert_resumes
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from lit_generative import VAE, ImageDataModule
from lit_generative.gan import GAN
from lit_generative.optim import Muon, OneCycle
from lit_generative.recipes import recipes

MakeVAE = Callable[..., VAE]
MakeTrainer = Callable[..., L.Trainer]
STEPS = 20


def rates(optimizer: Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler) -> list[list[float]]:
    """Return the learning rates of all groups, at each step."""
    found = [scheduler.get_last_lr()]
    for _ in range(STEPS - 1):
        optimizer.step()
        scheduler.step()
        found.append(scheduler.get_last_lr())
    return found


def parameters(n: int = 1) -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(3, 2)) for _ in range(n)]


@pytest.mark.parametrize("make", [Adam, Muon, functools.partial(SGD, momentum=0.9)])
def test_it_is_torchs_schedule_with_the_optimizers_rate_as_its_peak(make: Callable[..., Optimizer]) -> None:
    shape = {"total_steps": STEPS, "pct_start": 0.3, "div_factor": 10.0, "final_div_factor": 4.0}
    ours, theirs = make(parameters(), lr=3e-3), make(parameters(), lr=1.0)
    expected = rates(theirs, OneCycleLR(theirs, max_lr=3e-3, cycle_momentum=False, **shape))
    found = rates(ours, OneCycle(ours, **shape))
    assert found == expected  # bit for bit
    assert max(found) == [3e-3]
    assert ours.defaults.get("momentum") == ours.param_groups[0].get("momentum")


def test_groups_of_parameters_peak_at_rates_of_their_own() -> None:
    first, second = parameters(2)
    optimizer = Adam([{"params": [first], "lr": 1e-2}, {"params": [second], "lr": 1e-4}])
    a, b = zip(*rates(optimizer, OneCycle(optimizer, total_steps=STEPS)), strict=True)
    assert (max(a), max(b)) == (1e-2, 1e-4)


def test_a_restored_schedule_goes_on(make_vae: MakeVAE, make_trainer: MakeTrainer) -> None:
    def make() -> VAE:
        model = make_vae()
        model.make_optimizer = functools.partial(Muon, lr=2e-3)
        model.make_lr_scheduler = functools.partial(OneCycle, pct_start=0.2)
        return model

    assert_resumes(make, make_trainer, (5,))


def test_a_resumed_run_follows_the_optimizers_new_rate(
    make_vae: MakeVAE, make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: object
) -> None:
    def trained(lr: float, epochs: int, path: str | None) -> L.Trainer:
        model = VAE(**make_vae_arguments(make_vae()), optimizer=functools.partial(Adam, lr=lr), lr_scheduler=OneCycle)
        trainer = make_trainer(max_epochs=epochs, limit_train_batches=3, limit_val_batches=0)
        trainer.fit(model, data, ckpt_path=path, weights_only=False)
        return trainer

    first = trained(1e-3, 1, None)
    path = f"{tmp_path}/last.ckpt"
    first.save_checkpoint(path)
    (group,) = trained(1e-5, 2, path).optimizers[0].param_groups
    assert group["max_lr"] == 1e-5
    assert group["lr"] < 1e-5


def make_vae_arguments(model: VAE) -> dict[str, object]:
    return {name: getattr(model, name) for name in ("encoder", "decoder", "likelihood", "latent_dim")}


def test_no_recipe_has_a_second_rate() -> None:
    for recipe in recipes():
        assert "max_lr" not in recipe.path.read_text(), recipe.name


@pytest.mark.parametrize(
    "schedule",
    [functools.partial(OneCycleLR, max_lr=1e-2), functools.partial(CyclicLR, base_lr=1e-4, max_lr=1e-2)],
)
def test_two_learning_rates_are_refused(schedule: Callable, make_vae: MakeVAE, make_gan: Callable[..., GAN]) -> None:
    parts, adam = make_vae_arguments(make_vae()), functools.partial(Adam, lr=1e-7)
    with pytest.raises(ValueError, match=r"optimizer\.lr=1e-07, but \w+ has a learning rate of its own.*take OneCycle"):
        VAE(**parts, optimizer=adam, lr_scheduler=schedule)
    with pytest.raises(ValueError, match=r"generator_optimizer\.lr=1e-07, but"):
        make_gan(generator_optimizer=adam, generator_lr_scheduler=schedule)
    make_gan(discriminator_lr_scheduler=schedule)  # of a model's default nothing was asked


def test_the_default_of_an_optimizer_gives_way_and_a_warning_says_so(make_vae: MakeVAE) -> None:
    schedule = functools.partial(OneCycleLR, max_lr=1e-2)
    with pytest.warns(UserWarning, match=r"of its own, 0\.01, which counts"):
        VAE(**make_vae_arguments(make_vae()), optimizer=functools.partial(Adam, lr=1e-3), lr_scheduler=schedule)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total_steps": 0}, "total_steps=0: it must be at least 1"),
        ({}, "total_steps=None: give the number of steps"),
        ({"total_steps": 9, "pct_start": 1.5}, r"pct_start=1\.5: it must be in \[0, 1\]"),
        ({"total_steps": 9, "div_factor": 0}, "div_factor=0: it must be at least 1"),
        ({"total_steps": 9, "final_div_factor": -1}, "final_div_factor=-1: it must be positive"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OneCycle(Adam(parameters()), **options)
