"""The most steps that a sampler may take within a number of network evaluations."""

import pytest
import torch
from torch import nn

from lit_generative import DDPM, GenerativeModule
from lit_generative.comparison.evaluations import at_most
from lit_generative.diffusion import (
    DDIM,
    AncestralSampler,
    DPMSolverPP2M,
    HeunSampler,
    ResampledSpacing,
    Sampler,
    UniformSpacing,
)


class Flat(nn.Module):
    """A network of one weight that predicts nearly nothing."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 0.1))

    def forward(self, x, t, y=None):
        return x * self.weight


def diffusion(sampler, **options):
    return DDPM(Flat(), (1, 28, 28), sampler=sampler, **options)


SAMPLERS = {
    "ddim": (lambda: DDIM(50), 20, 20),
    "heun": (lambda: HeunSampler(50, UniformSpacing()), 20, 19),
    "ancestral": (lambda: AncestralSampler(1000), 20, 20),
    "resampled": (lambda: AncestralSampler(60, ResampledSpacing(UniformSpacing(), jump=2, passes=3)), 20, 18),
    "few enough": (lambda: DDIM(7), 20, 7),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_takes_the_most_steps_within_the_limit(name):
    make, limit, expected = SAMPLERS[name]
    model = diffusion(make())
    own = model.sampler
    with at_most(model, limit):
        assert model.network_evaluations == expected
        described = model.sampling["sampler"]["init_args"]
        assert described["steps"] == model.sampler.steps
        assert described.get("eta", 0) == getattr(own, "eta", 0)
    assert model.sampler is own
    with at_most(model, None):
        assert model.sampler is own


def test_a_guided_model_asks_two_networks_a_step():
    model = diffusion(DPMSolverPP2M(15), guidance=2.0, guide_at=10)
    model.guide_kept_at.fill_(10)
    with at_most(model, 21):
        assert model.sampler.steps == 10
    with (
        pytest.raises(ValueError, match="evaluations=1: one step of this model takes 2; give at least 2"),
        at_most(model, 1),
    ):
        pass
    assert model.sampler.steps == 15


class Fixed(Sampler):
    """A user's sampler, whose steps are its own affair."""

    def __init__(self):
        super().__init__(steps=9)

    def step(self, x_t, t, s, run):
        return run.denoise(x_t, t)


def test_a_sampler_that_takes_no_steps_is_an_error():
    model = diffusion(Fixed())
    message = r"evaluations=5: Fixed cannot be made with steps=5 .*leave evaluations out"
    with pytest.raises(ValueError, match=message), at_most(model, 5):
        pass
    assert model.sampler.steps == 9


def test_other_models_are_left_as_they_are():
    with at_most(GenerativeModule(), 0):
        pass
