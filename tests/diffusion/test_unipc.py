"""UniPC beside what its tests share with all samplers: its order, its cost, and what it forgets."""

import math
from itertools import pairwise

import pytest
import torch
from analytic import GaussianData, MixtureData, image_gaussian
from torch import Tensor

from lit_generative.description import describe, rebuild
from lit_generative.diffusion import (
    CosineSchedule,
    DPMSolverPP2M,
    EDMSchedule,
    Estimate,
    KarrasSpacing,
    LogSNRSpacing,
    RectifiedFlowSchedule,
    ResampledSpacing,
    Schedule,
    StaticThresholding,
    UniformSpacing,
    UniPC,
    ZeroTerminalSNRSchedule,
)
from lit_generative.diffusion.editing import encode

SCHEDULES = [CosineSchedule(), EDMSchedule(), RectifiedFlowSchedule(), ZeroTerminalSNRSchedule(CosineSchedule())]
GAUSSIAN = GaussianData([0.3, -0.5], [[0.25, 0.1], [0.1, 0.09]])


@pytest.mark.parametrize(("order", "expected"), [(1, 2), (2, 3), (3, 4)])
@pytest.mark.parametrize("schedule", [RectifiedFlowSchedule(), EDMSchedule(sigma_min=1e-4)])
def test_it_is_of_order_p_plus_1(schedule: Schedule, order: int, expected: int) -> None:
    errors = []
    for steps in (40, 80, 160):
        sampler = UniPC(steps, KarrasSpacing(sigma_min=1e-4, t_min=0), order=order)
        first, generator = sampler.levels(schedule)[0], torch.Generator().manual_seed(0)
        x_T = first.sigma * torch.randn(64, 2, 1, 1, generator=generator, dtype=torch.float64)
        exact = GAUSSIAN.flow(x_T, first.alpha, first.sigma)
        error = sampler.sample(GAUSSIAN.denoiser(schedule), x_T, schedule) - exact
        errors.append(error.square().mean().sqrt().item())
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(expected, abs=0.4), errors


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("steps", [15, 20, 25])
def test_it_is_nearer_to_the_images_than_2m_for_the_same_evaluations(steps: int, schedule: Schedule) -> None:
    images, spacing = image_gaussian(), LogSNRSpacing()
    ours, theirs = (images.frechet(cls(steps, spacing), schedule)[1] for cls in (UniPC, DPMSolverPP2M))
    assert ours < 0.8 * theirs
    assert UniPC(steps).evaluations == steps


def test_estimates_are_counted_and_thresholded_and_noise_put_back_is_no_path() -> None:
    calls: list[float] = []

    def denoise(x: Tensor, t: Tensor) -> Estimate:
        calls.append(t[0].item())
        return Estimate(3 * x)

    for spacing in (None, UniformSpacing(), ResampledSpacing(UniformSpacing(), jump=3, passes=2)):
        calls.clear()
        sampler = UniPC(7, spacing, StaticThresholding())
        x_T = torch.randn(4, 1, 3, 3)
        untouched = x_T.clone()
        for schedule in SCHEDULES[:2]:
            calls.clear()
            way = [(x, x.clone()) for x in sampler.trajectory(denoise, x_T, schedule)]
            assert len(calls) == sampler.evaluations
            assert calls == torch.tensor(sampler.evaluated_at(schedule)).tolist()
            assert way[-1][0].abs().max() <= 1
            assert all(torch.equal(x, copy) for x, copy in way)
        assert torch.equal(x_T, untouched)


def test_a_constant_estimate_is_reached_from_anywhere() -> None:
    """The polynomial of all orders is then that constant, and the correction 0."""
    constant = torch.linspace(-1, 1, 4).double().view(1, 1, 2, 2).expand(3, 1, 2, 2)
    for schedule in SCHEDULES:
        first, *_ = UniPC(9).levels(schedule)
        x_T, eps = first.alpha * constant + first.sigma, torch.ones_like(constant)
        for level, x in zip(
            UniPC(9).levels(schedule),
            UniPC(9).trajectory(lambda x, t: Estimate(constant), x_T, schedule),
            strict=True,
        ):
            torch.testing.assert_close(x, level.alpha * constant + level.sigma * eps, rtol=1e-6, atol=1e-6)


def test_samples_of_a_mixture_are_of_its_components_and_images_are_found_again() -> None:
    schedule, data = CosineSchedule(), MixtureData((-0.8, 0.4), std=0.1, share=0.3)
    x_T = torch.randn(5000, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = UniPC(20).sample(data.denoiser(schedule), x_T, schedule).flatten()
    assert (x < -0.2).double().mean().item() == pytest.approx(0.3, abs=0.025)
    for schedule in SCHEDULES:
        x0 = GAUSSIAN.mean.view(1, 2, 1, 1) + 0.3 * torch.randn(16, 2, 1, 1).double()
        denoise = GAUSSIAN.denoiser(schedule)
        again = UniPC(40).sample(denoise, encode(UniPC(40), denoise, x0, schedule), schedule)
        torch.testing.assert_close(again, x0, rtol=0, atol=0.02)


def test_it_is_rebuilt_and_its_order_checked() -> None:
    sampler = UniPC(12, order=2)
    assert describe(rebuild(describe(sampler.with_steps(5)))) == describe(UniPC(5, order=2))
    with pytest.raises(ValueError, match=r"order=4: .*\[1, 3\]"):
        UniPC(order=4)
