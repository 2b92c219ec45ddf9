import pytest
import torch
from analytic import GaussianData
from torch import Tensor

from lit_generative.diffusion.editing import inpaint, sdedit
from lit_generative.diffusion.guidance import Guided
from lit_generative.diffusion.runs import Denoise
from lit_generative.diffusion.samplers import DDIM, AncestralSampler
from lit_generative.diffusion.schedules import CosineSchedule
from lit_generative.diffusion.solvers import DPMSolverPP2M
from lit_generative.diffusion.spacings import ResampledSpacing, UniformSpacing

CORRELATED = GaussianData([0.0, 0.0], [[0.25, 0.2], [0.2, 0.25]])


def constant(value: float, calls: list[Tensor]) -> Denoise:
    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return torch.full_like(x_t, value)

    return denoise


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 0.2), (1.0, 0.5), (3.0, 1.1)])
def test_guidance_extrapolates_from_the_unconditional_estimate(scale: float, expected: float) -> None:
    x, t = torch.randn(2, 1, 3, 3), torch.full((2,), 0.5)
    guided = Guided(constant(0.5, []), constant(0.2, []), scale)
    torch.testing.assert_close(guided(x, t), torch.full_like(x, expected))


def test_scale_1_costs_one_evaluation() -> None:
    calls: list[Tensor] = []
    Guided(constant(0.5, []), constant(0.2, calls), 1.0)(torch.randn(2, 1, 3, 3), torch.ones(2))
    assert not calls


def test_guidance_is_limited_to_its_interval() -> None:
    calls: list[Tensor] = []
    guided = Guided(constant(0.5, []), constant(0.2, calls), 3.0, interval=(0.25, 0.75))
    x = torch.zeros(4, 1, 1, 1)
    mixed = guided(x, torch.tensor([0.1, 0.25, 0.5, 0.9])).flatten()
    torch.testing.assert_close(mixed, torch.tensor([0.5, 0.5, 1.1, 0.5]))
    calls.clear()
    DDIM(8).sample(guided, x, CosineSchedule())
    assert [t[0].item() for t in calls] == [0.75, 0.625, 0.5, 0.375]


def test_guided_gaussians_have_the_mean_of_the_product() -> None:
    """Where conditional and unconditional differ in mean alone, guidance moves the mean by scale times as much."""
    schedule, x_T = CosineSchedule(), torch.randn(4000, 1, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    near, far = (GaussianData([mean], [[0.04]]).denoiser(schedule) for mean in (0.1, 0.3))
    x = DPMSolverPP2M(40).sample(Guided(far, near, 2.0), x_T, schedule)
    assert x.mean().item() == pytest.approx(0.5, abs=0.01)
    assert x.std().item() == pytest.approx(0.2, rel=0.05)


def test_impossible_guidance_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scale=-1"):
        Guided(constant(0, []), constant(0, []), -1)
    with pytest.raises(ValueError, match=r"interval=\(0.5, 0.2\)"):
        Guided(constant(0, []), constant(0, []), 2, (0.5, 0.2))


def test_inpainting_keeps_what_is_known_and_resampling_makes_the_rest_agree() -> None:
    schedule = CosineSchedule()
    image = torch.tensor([0.5, 99.0]).double().view(1, 2, 1, 1).repeat(1500, 1, 1, 1)
    known = torch.tensor([True, False]).view(1, 2, 1, 1)
    errors = []
    for spacing in (UniformSpacing(), ResampledSpacing(UniformSpacing(), jump=5, passes=8)):
        sampler, generator = AncestralSampler(50, spacing), torch.Generator().manual_seed(0)
        x = inpaint(sampler, CORRELATED.denoiser(schedule), image, known, schedule, generator=generator)
        assert torch.equal(x[:, 0], image[:, 0])
        errors.append(abs(x[:, 1].mean().item() - 0.4))  # E[x_2 | x_1 = 0.5] = 0.2 / 0.25 * 0.5
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.05


def test_remaking_stays_the_nearer_to_the_image_the_later_it_starts() -> None:
    schedule, image = CosineSchedule(), torch.full((2000, 2, 1, 1), 0.8).double()
    denoise = CORRELATED.denoiser(schedule)
    results = [
        sdedit(DDIM(50), denoise, image, schedule, start=start, generator=torch.Generator().manual_seed(0))
        for start in (0.05, 0.4, 1.0)
    ]
    distances = [(x - image).square().mean().sqrt().item() for x in results]
    assert distances[0] < 0.1
    assert distances == sorted(distances)
    torch.testing.assert_close(results[-1].flatten(1).T.cov(), CORRELATED.covariance, rtol=0.15, atol=0)
    with pytest.raises(ValueError, match=r"start=0\.0.*0\.5"):
        sdedit(DDIM(5), denoise, image, schedule, start=0.0)
