"""The same trajectories as an independent implementation's, from the same noise-prediction function."""

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from lit_generative.diffusion import Estimate
from lit_generative.diffusion.samplers import DDIM, AncestralSampler, DPMSolverPP2M, EulerSampler, HeunSampler, Sampler
from lit_generative.diffusion.schedules import LinearBetaSchedule, per_image
from lit_generative.diffusion.spacings import LeadingSpacing, TrailingSpacing
from lit_generative.diffusion.thresholding import DynamicThresholding, StaticThresholding

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SCHEDULE = LinearBetaSchedule()
BETAS = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}


def eps(x: Tensor, t: float) -> Tensor:
    """Predict noise as a smooth, nonlinear function of x and of t in [0, 1], about right for data of some structure."""
    return x * (0.2 + 0.75 * t) + 0.15 * torch.sin(3 * x + 2 * t)


def denoise(x_t: Tensor, t: Tensor) -> Estimate:
    alpha, sigma = (per_image(level, x_t) for level in SCHEDULE(t))
    return Estimate((x_t - sigma * eps(x_t, t[0].item())) / alpha)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def x_T() -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=seeded())


def their_trajectory(scheduler: Any, steps: int, **options: Any) -> list[Tensor]:
    """Return x after each step; diffusers' timestep k of 0, ..., 999 is our (k + 1) / 1000."""
    scheduler.set_timesteps(steps)
    x, xs = x_T(), []
    for k in scheduler.timesteps:
        x = scheduler.step(eps(x, (k.item() + 1) / 1000), k, x, **options).prev_sample
        xs.append(x)
    return xs


def our_trajectory(sampler: Sampler) -> list[Tensor]:
    return list(sampler.trajectory(denoise, x_T(), SCHEDULE, generator=seeded(1)))[1:]


def assert_equal(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-4) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.to(a.dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("k", [0, 1, 10, 500, 999])
def test_noised_images(k: int) -> None:
    """Theirs takes 1 - alpha_bar in float32, right to 1e-5 where that is small; in float64 they agree to 1e-6."""
    scheduler = diffusers.DDPMScheduler(**BETAS)
    x, noise = torch.randn(2, 2, 3, 4, 4, generator=seeded(), dtype=torch.float64)
    alpha, sigma = (per_image(level, x).double() for level in SCHEDULE(torch.full((2,), (k + 1) / 1000)))
    for alpha_bars, tolerance in (
        (scheduler.alphas_cumprod.double(), 1e-5),
        ((1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0), 1e-6),
    ):
        scheduler.alphas_cumprod = alpha_bars
        theirs = scheduler.add_noise(x, noise, torch.tensor([k, k]))
        torch.testing.assert_close(alpha * x + sigma * noise, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("steps", [50, 1000])
@pytest.mark.parametrize(("variance", "v"), [("fixed_small", 0.0), ("fixed_large", 1.0)])
@pytest.mark.parametrize("thresholding", [None, StaticThresholding(1.0)])
def test_ddpm(steps: int, variance: str, v: float, thresholding: StaticThresholding | None) -> None:
    scheduler = diffusers.DDPMScheduler(
        **BETAS, variance_type=variance, clip_sample=thresholding is not None, timestep_spacing="leading"
    )  # "trailing" has theirs add noise to the final image of 50 steps, which is not at its timestep 0
    theirs = their_trajectory(scheduler, steps, generator=seeded(1))
    assert_equal(our_trajectory(AncestralSampler(steps, LeadingSpacing(), thresholding, v=v)), theirs)


@pytest.mark.parametrize(("name", "spacing"), [("leading", LeadingSpacing()), ("trailing", TrailingSpacing())])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(eta: float, name: str, spacing: LeadingSpacing | TrailingSpacing) -> None:
    scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=False, timestep_spacing=name)
    theirs = their_trajectory(scheduler, 50, eta=eta, generator=seeded(1))
    assert_equal(our_trajectory(DDIM(50, spacing, eta=eta)), theirs)


@pytest.mark.parametrize(
    ("thresholding", "options"),
    [
        (StaticThresholding(1.0), {"clip_sample": True}),
        (DynamicThresholding(0.9), {"clip_sample": False, "thresholding": True, "dynamic_thresholding_ratio": 0.9}),
    ],
)
def test_thresholding(thresholding: StaticThresholding | DynamicThresholding, options: dict[str, Any]) -> None:
    if options.get("thresholding"):
        options = options | {"sample_max_value": 1e9}  # theirs caps the quantile, the paper does not
    scheduler = diffusers.DDIMScheduler(**BETAS, timestep_spacing="trailing", **options)
    theirs = their_trajectory(scheduler, 20, use_clipped_model_output=True)
    assert_equal(our_trajectory(DDIM(20, TrailingSpacing(), thresholding)), theirs)


@pytest.mark.parametrize("steps", [10, 20, 37])
@pytest.mark.parametrize(("algorithm", "eta"), [("dpmsolver++", 0.0), ("sde-dpmsolver++", 1.0)])
def test_dpm_solver(algorithm: str, eta: float, steps: int) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BETAS, algorithm_type=algorithm, solver_order=2, timestep_spacing="trailing"
    )
    theirs = their_trajectory(scheduler, steps, generator=seeded(1))
    assert_equal(our_trajectory(DPMSolverPP2M(steps, TrailingSpacing(), eta=eta)), theirs)


class UnscaledSchedule(LinearBetaSchedule):
    """The same noise levels with alpha = 1, that is, of x / alpha."""

    variance_preserving = False

    def path(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(log_snr), torch.exp(-log_snr / 2)


@pytest.mark.parametrize("steps", [10, 37])
@pytest.mark.parametrize(
    ("cls", "theirs"),
    [(EulerSampler, diffusers.EulerDiscreteScheduler), (HeunSampler, diffusers.HeunDiscreteScheduler)],
)
def test_euler_and_heun(cls: type[Sampler], theirs: Callable[..., Any], steps: int) -> None:
    """Theirs integrate x / alpha by sigma / alpha, as Karras et al. do."""
    scheduler, schedule = theirs(**BETAS, timestep_spacing="trailing"), UnscaledSchedule()
    scheduler.set_timesteps(steps)

    def denoise(x_t: Tensor, t: Tensor) -> Estimate:
        _, sigma = (per_image(level, x_t) for level in schedule(t))
        return Estimate(x_t - sigma * eps(x_t / (1 + sigma**2).sqrt(), t[0].item()))

    sampler = cls(steps, TrailingSpacing())
    x = x_T() * sampler.levels(schedule)[0].sigma
    _, *ours = sampler.trajectory(denoise, x, schedule)
    xs = []
    for i, k in enumerate(scheduler.timesteps):
        at = scheduler.scale_model_input(x, k)
        x = scheduler.step(eps(at, (k.item() + 1) / 1000), k, x).prev_sample
        is_whole = cls is EulerSampler or i % 2 == 1 or i == len(scheduler.timesteps) - 1
        xs += [x] if is_whole else []
    assert_equal(ours, xs)
