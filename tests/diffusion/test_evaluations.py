"""The most steps that a sampler may take within a number of network evaluations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_generative import DDPM, GenerativeModule
from lit_generative.contracts import SamplesInSteps
from lit_generative.diffusion import (
    DDIM,
    AncestralSampler,
    AutoGuidance,
    ClassifierFree,
    DPMSolverPP2M,
    HeunSampler,
    NoiseLevel,
    ResampledSpacing,
    Sampler,
    SamplingState,
    UniformSpacing,
)


class Flat(nn.Module):
    """A network of one weight that predicts nearly nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 0.1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return x * self.weight


def diffusion(sampler: Sampler, **options: Any) -> DDPM:
    return DDPM(Flat(), (1, 28, 28), sampler=sampler, **options)


SAMPLERS: dict[str, tuple[Callable[[], Sampler], int, int]] = {
    "ddim": (lambda: DDIM(50), 20, 20),
    "heun": (lambda: HeunSampler(50, UniformSpacing()), 20, 19),
    "ancestral": (lambda: AncestralSampler(1000), 20, 20),
    "resampled": (lambda: AncestralSampler(60, ResampledSpacing(UniformSpacing(), jump=2, passes=3)), 20, 18),
    "few enough": (lambda: DDIM(7), 20, 7),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_takes_the_most_steps_within_the_limit(name: str) -> None:
    make, limit, expected = SAMPLERS[name]
    model = diffusion(make())
    own = model.sampler
    with model.at_most(limit):
        assert model.network_evaluations == expected
        described = model.sampling["sampler"]["init_args"]
        assert described["steps"] == model.sampler.steps
        assert described.get("eta", 0) == getattr(own, "eta", 0)
    assert model.sampler is own
    with model.at_most(None):
        assert model.sampler is own


def test_a_guided_model_asks_two_networks_a_step() -> None:
    guidance = AutoGuidance(2.0)
    model = diffusion(DPMSolverPP2M(15), guidance=guidance)
    guidance.kept_at.fill_(10)
    with model.at_most(21):
        assert model.sampler.steps == 10
    with (
        pytest.raises(ValueError, match="evaluations=1: one step of this model takes 2; give at least 2"),
        model.at_most(1),
    ):
        pass
    assert model.sampler.steps == 15


@pytest.mark.parametrize("limit", [3, 10, 17, 40])
def test_no_more_steps_would_keep_within_the_limit(limit: int) -> None:
    model = diffusion(HeunSampler(40, UniformSpacing()), num_classes=3, guidance=ClassifierFree(2.0, (0.2, 0.7)))
    with model.at_most(limit):
        chosen = model.sampler.steps
        assert model.network_evaluations <= limit
    for steps in range(chosen + 1, 41):
        model.sampler = HeunSampler(steps, UniformSpacing())
        assert model.network_evaluations > limit


class Fixed(Sampler):
    """A user's sampler, whose steps are its own affair."""

    def __init__(self) -> None:
        super().__init__(steps=9)

    def step(self, x_t: Tensor, t: NoiseLevel, s: NoiseLevel, state: SamplingState) -> Tensor:
        return state.denoise(x_t, t).x0


def test_a_sampler_that_takes_no_steps_is_an_error() -> None:
    model = diffusion(Fixed())
    message = r"evaluations=5: Fixed cannot be made with steps=\d; .*leave evaluations out"
    with pytest.raises(ValueError, match=message), model.at_most(5):
        pass
    assert model.sampler.steps == 9


def test_the_protocol_is_met_by_diffusion_models_alone() -> None:
    assert isinstance(diffusion(DDIM(2)), SamplesInSteps)
    assert not isinstance(GenerativeModule(), SamplesInSteps)
