"""Images from images: to noise and back along the ODE, completed, and remade."""

from typing import Any

import pytest
import torch
from analytic import GaussianData
from known_networks import MEAN, STD, Exact, Stub
from torch import Tensor

from lit_generative import DDPM
from lit_generative.diffusion import (
    DDIM,
    AncestralSampler,
    ChurnedSpacing,
    ClassifierFree,
    CosineSchedule,
    DPMSolverPP2M,
    EDMSchedule,
    Estimate,
    EulerSampler,
    HeunSampler,
    KarrasSpacing,
    LinearBetaSchedule,
    LogSNRSpacing,
    NoisePrediction,
    RectifiedFlowSchedule,
    ResampledSpacing,
    Sampler,
    Schedule,
    StaticThresholding,
    UniformSpacing,
)
from lit_generative.diffusion.editing import encode, inpaint, sdedit
from lit_generative.interpolation import spherical

CORRELATED = GaussianData([0.0, 0.0], [[0.25, 0.2], [0.2, 0.25]])
DATA = GaussianData([0.3, -0.5], [[0.09, 0.03], [0.03, 0.04]])
SHAPE = (1, 8, 8)


def images(n: int = 64) -> Tensor:
    """Draws of DATA, (n, 2, 1, 1)."""
    normal = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (DATA.mean + normal @ torch.linalg.cholesky(DATA.covariance).T)[:, :, None, None]


def errors(sampler: Sampler, schedule: Schedule) -> tuple[float, float]:
    """Root mean square errors of encoding, against the exact ODE, and of encoding and decoding."""
    x, denoise, first = images(), DATA.denoiser(schedule), sampler.levels(schedule)[0]
    x_T = encode(sampler, denoise, x, schedule)
    back = DATA.flow(x_T, first.alpha, first.sigma)  # the exact way down
    return rms(back - x), rms(sampler.sample(denoise, x_T, schedule) - x)


def rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


SCHEDULES = pytest.mark.parametrize(
    "schedule",
    [LinearBetaSchedule(), CosineSchedule(), RectifiedFlowSchedule(), EDMSchedule()],
    ids=lambda value: type(value).__name__,
)


@SCHEDULES
def test_errors_of_ddim_fall_with_the_steps(schedule: Schedule) -> None:
    coarse, fine = (errors(DDIM(n, LogSNRSpacing()), schedule) for n in (40, 160))
    assert fine[0] < 0.35 * coarse[0]
    assert fine[1] < 0.35 * coarse[1]
    assert max(fine) < 0.02


@SCHEDULES
def test_errors_of_heun_fall_with_the_square_of_the_steps(schedule: Schedule) -> None:
    coarse, fine = (errors(HeunSampler(n), schedule) for n in (25, 100))
    assert fine[1] < 0.1 * coarse[1]
    assert max(fine) < 1e-3
    assert coarse[1] < 0.2 * errors(DDIM(50, KarrasSpacing()), schedule)[1]  # at the same cost


@pytest.mark.parametrize(
    "sampler",
    [DDIM(300), EulerSampler(300), HeunSampler(100), DPMSolverPP2M(200, LogSNRSpacing())],
    ids=lambda value: type(value).__name__,
)
def test_every_deterministic_sampler_goes_back(sampler: Sampler) -> None:
    assert max(errors(sampler, LinearBetaSchedule())) < 0.01


def test_latents_of_the_data_are_standard_normal() -> None:
    x = images(4000)
    x_T = encode(HeunSampler(50), DATA.denoiser(LinearBetaSchedule()), x, LinearBetaSchedule()).flatten(1)
    torch.testing.assert_close(x_T.mean(0), torch.zeros(2).double(), atol=0.06, rtol=0)
    torch.testing.assert_close(x_T.T.cov(), torch.eye(2).double(), atol=0.08, rtol=0)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (
            AncestralSampler(10),
            r"sampler=AncestralSampler: it draws noise, so .*; take DDIM\(\) or Heun",
        ),
        (AncestralSampler(10, v=None), "sampler=AncestralSampler: it draws noise"),
        (DDIM(10, eta=0.5), "sampler=DDIM: it draws noise"),
        (DPMSolverPP2M(10, eta=1.0), "sampler=DPMSolverPP2M: it draws noise"),
        (
            HeunSampler(10, ChurnedSpacing(KarrasSpacing())),
            "spacing=ChurnedSpacing: it puts noise back; take a plain one here",
        ),
        (DDIM(10, ResampledSpacing(UniformSpacing())), "spacing=ResampledSpacing: it puts noise back"),
    ],
)
def test_what_has_no_way_back_is_refused_before_the_network_is_asked(sampler: Sampler, message: str) -> None:
    def denoise(x_t: Tensor, t: Tensor) -> Estimate:
        raise AssertionError

    with pytest.raises(ValueError, match=message):
        encode(sampler, denoise, images(), LinearBetaSchedule())


# ---------------------------------------------------------------- completed, and remade


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


# ---------------------------------------------------------------- the model's methods


def exact(**options: Any) -> DDPM:
    return DDPM(Exact(LinearBetaSchedule(), NoisePrediction()), SHAPE, **options).eval()


def gaussian_images(n: int, seed: int = 0) -> Tensor:
    return MEAN + STD * torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def test_a_model_encodes_and_decodes() -> None:
    model, x = exact(), gaussian_images(4)
    x_T = model.encode(x)
    torch.testing.assert_close(x_T, (x - MEAN) / STD, atol=0.02, rtol=0.02)
    torch.testing.assert_close(model.decode(x_T), x, atol=0.01, rtol=0)
    coarse = DDIM(10, thresholding=StaticThresholding())
    assert rms(model.decode(model.encode(x, sampler=coarse), sampler=coarse) - x) > 5 * rms(model.decode(x_T) - x)


def test_interpolations_of_images_have_these_as_ends_and_the_arc_between() -> None:
    model, x_0, x_1 = exact(), gaussian_images(3), gaussian_images(3, seed=1)
    found = model.interpolate(x_0, x_1, 5)
    expected = MEAN + STD * spherical((x_0 - MEAN) / STD, (x_1 - MEAN) / STD, 5)
    torch.testing.assert_close(found, expected.clamp(-1, 1), atol=0.015, rtol=0)


def test_interpolations_of_noise_keep_the_datas_variance_where_a_mean_of_images_halves_it() -> None:
    path = exact().interpolate_samples(16, 3, generator=torch.Generator().manual_seed(0))
    assert path.shape == (3, 16, *SHAPE)
    stds = path.flatten(1).std(1)
    torch.testing.assert_close(stds, torch.full((3,), STD), atol=0.02, rtol=0)
    assert ((path[0] + path[2]) / 2).std() < 0.8 * STD


def test_noise_is_decided_by_the_generator_and_leaves_the_random_state() -> None:
    model, before = exact(), torch.random.get_rng_state()
    first, second, other = (
        model.interpolate_samples(2, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_encoding_takes_labels_and_is_not_guided_unlike_new_images() -> None:
    network = Stub(lambda x, t, y: torch.full_like(x, 0.1) * y.view(-1, 1, 1, 1))
    model = DDPM(network, SHAPE, num_classes=2, guidance=ClassifierFree(2.0)).eval()
    y = torch.tensor([0, 1])
    model.decode(model.encode(gaussian_images(2), y), y)
    assert all(torch.equal(asked, y) for _, _, asked in network.asked)
    network.asked.clear()
    model.interpolate_samples(2, 2, y)
    assert any(2 in asked for _, _, asked in network.asked)  # "none"
    with pytest.raises(ValueError, match=r"a model of classes needs labels \(2,\)"):
        model.encode(gaussian_images(2))
