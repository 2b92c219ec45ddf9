"""What is measured of a model, where it is known beforehand."""

import contextlib
import dataclasses
import json
import math

import pytest
import torch
from torch import nn

from lit_generative import DDPM, GAN, VAE, GenerativeModule, ImageDataModule
from lit_generative.comparison.folder_model import ImagesOf
from lit_generative.comparison.measure import MeasurementProtocol, bits_of_images, measure, parameters_of_sampling
from lit_generative.comparison.real_images import RealImages
from lit_generative.data import GaussianRing
from lit_generative.diffusion import DDIM, AutoGuidance
from lit_generative.evaluation import Evaluator, radial_spectrum
from lit_generative.report.results import Run
from lit_generative.sampling import sampling_mode

SHAPE = (1, 28, 28)


class Flat(nn.Module):
    """A network of one weight that predicts nearly nothing."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 0.1))

    def forward(self, x, t, y=None):
        return x * self.weight


class Known(GenerativeModule):
    """A user's own: noise, and a likelihood that is known."""

    def __init__(self, sides=(8.0, 8.0)):
        super().__init__()
        self.bits = sides
        self.used, self.unused = nn.Linear(3, 5), nn.Linear(7, 11)
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)

    @sampling_mode
    def sample(self, n, y=None, *, generator=None):
        shift = self.used(torch.zeros(3)).sum() + self.frozen.sum()
        return torch.rand(n, *SHAPE) + 0 * shift

    def likelihoods(self, x, y=None, *, evaluations, generator=None):
        dark = x.mean(dim=(1, 2, 3)) < -0.5
        bits = torch.where(dark, *map(torch.tensor, self.bits))
        return {"exact": bits * x[0].numel() * math.log(2)}


class InSteps(GenerativeModule):
    """A user's own: it asks its network an odd number of times a sample, from 3 to 19, the more the better."""

    def __init__(self):
        super().__init__()
        self.network_evaluations = 19

    @contextlib.contextmanager
    def at_most(self, evaluations):
        own = self.network_evaluations
        if evaluations < 3:
            raise ValueError("evaluations: one step takes 3")
        self.network_evaluations = min(own, evaluations - 1 + evaluations % 2)
        try:
            yield
        finally:
            self.network_evaluations = own

    @sampling_mode
    def sample(self, n, y=None, *, generator=None):
        return torch.rand(n, *SHAPE) * self.network_evaluations / 19


@pytest.fixture(scope="module")
def data():
    return ImageDataModule(subset=1000)


@pytest.fixture(scope="module")
def train(data):
    batch = next(iter(data.loader("train", batch_size=1000)))
    return batch["image"], batch["label"]


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory):
    return Evaluator(num_samples=300, num_real=400, batch_size=150, cache_dir=str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def protocol(evaluator):
    return MeasurementProtocol(evaluator, likelihood_images=0)


@pytest.fixture(scope="module")
def real(data, evaluator):
    return RealImages.of(data, evaluator)


def diffusion(sampler, **options):
    return DDPM(Flat(), SHAPE, sampler=sampler, **options)


def test_a_copy_of_the_training_set_is_found_out_and_held_out_images_are_not(data, train, protocol, real):
    run, _ = measure(ImagesOf(train[0][:500]), "copy", "a tensor", data, protocol, real)
    assert run.metrics["memorised"] == 1
    assert run.metrics["nearest"] == pytest.approx(0, abs=1e-5)
    assert run.errors["memorised"] == 0
    assert run.metrics["memorised_features"] == 1
    assert run.metrics["authenticity"] == 0
    assert run.metrics["train_gap"] > 2 * run.errors["train_gap"]
    assert run.metrics["sharpness"] == pytest.approx(1, abs=4 * run.errors["sharpness"])
    held_out, _ = measure(ImagesOf(real.images), "held out", "a tensor", data, protocol, real)
    assert held_out.metrics["memorised"] == real.floor["memorised"] <= 0.01
    assert max(held_out.metrics["memorised_features"], real.floor["memorised_features"]) <= 0.01
    assert held_out.metrics["authenticity"] == pytest.approx(real.floor["authenticity"], abs=0.06)
    mirrored, _ = measure(ImagesOf(train[0][:500].flip(-1)), "mirrored", "a tensor", data, protocol, real)
    assert mirrored.metrics["memorised"] == 1
    assert held_out.metrics["nearest"] == pytest.approx(1, abs=4 * held_out.errors["nearest"])
    assert held_out.metrics["sharpness"] == pytest.approx(1, abs=4 * held_out.errors["sharpness"])
    assert len(held_out.spectrum) == 15


def test_what_a_folder_of_images_has_not_is_none(data, train, evaluator, real):
    protocol = MeasurementProtocol(evaluator, evaluations=5, curve=[2])
    run, _ = measure(ImagesOf(train[0]), "copy", "a tensor", data, protocol, real)
    assert run.family == "images"
    assert (run.seed, run.parameters, run.evaluations, run.images_per_second, run.training) == (None,) * 5
    assert run.likelihood == {}
    assert run.curve == []
    assert run.protocol["sampling_parameters"] == 0
    assert Run.from_dict(json.loads(json.dumps(dataclasses.asdict(run)))) == run


def test_of_given_images_none_counts_twice(data, train, protocol, real):
    images = train[0][:300]  # as many as are drawn, in more than one batch of the evaluator
    run, _ = measure(ImagesOf(images), "all", "a tensor", data, protocol, real)
    assert run.spectrum[1:] == pytest.approx(radial_spectrum(images).tolist()[1:], rel=1e-6)
    assert protocol.evaluator.batch_size == run.protocol["batch_size"] / 2 == 150


def test_classes_that_are_not_there_are_missing_by_name(data, train, protocol, real):
    images, labels = train
    run, _ = measure(ImagesOf(images[labels < 5]), "half", "a tensor", data, protocol, real)
    # some dresses and coats look like shirts to the classifier, so that class may just be there
    assert {"sandal", "sneaker", "bag", "ankle boot"} <= set(run.missing) <= set(data.class_names[5:])
    assert run.metrics["missing_classes"] == len(run.missing)


def test_fewer_images_than_samples_are_an_error_before_any_work(data, train, protocol, real):
    with pytest.raises(ValueError, match="made/by/others has 299 images, fewer than num_samples=300; give more"):
        measure(ImagesOf(train[0][:299]), "few", "made/by/others", data, protocol, real)


def test_a_users_model_is_measured_with_its_exact_likelihood(data, evaluator, real, tmp_path):
    model = Known()
    model.noise_seed = 3
    protocol = MeasurementProtocol(evaluator, likelihood_images=150)
    run, _ = measure(model, "mine", tmp_path, data, protocol, real)
    assert run.family == "Known"
    assert run.likelihood == {"exact": (pytest.approx(8, rel=1e-6), pytest.approx(0, abs=1e-6))}
    assert run.likelihood_images == {"exact": pytest.approx([8] * 150, rel=1e-6)}
    assert run.seed == 3
    assert run.parameters == 3 * 5 + 5 + 7 * 11 + 11
    assert run.protocol["sampling_parameters"] == 3 * 5 + 5 + 2
    assert run.evaluations == 1
    assert run.images_per_second > 0
    assert {"sharpness", "memorised", "nearest"} < run.errors.keys() == run.metrics.keys()
    assert run.spectrum[3:] == pytest.approx([1 / 12] * 12, rel=0.1)  # uniform noise


def test_bits_per_dim_have_the_standard_error_of_their_mean(data, evaluator):
    bits = bits_of_images(Known((6.0, 2.0)), data, evaluator, 150, 10)["exact"]
    found, error = bits.mean().item(), (bits.std() / 150**0.5).item()
    images = torch.cat([batch["image"] for batch in data.loader("test", limit=150)])
    share = (images.mean(dim=(1, 2, 3)) < -0.5).double().mean().item()
    assert 0.1 < share < 0.9
    assert found == pytest.approx(2 + 4 * share, rel=1e-5)
    assert error == pytest.approx(4 * (share * (1 - share) / 149) ** 0.5, rel=1e-5)
    assert bits_of_images(Known(), data, evaluator, 0, 10) == {}


def test_estimates_are_the_same_again_and_leave_the_random_state_alone(data, evaluator):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = bits_of_images(diffusion(DDIM(5)), data, evaluator, 10, 4)
    assert torch.equal(torch.rand(3), expected)
    again = bits_of_images(diffusion(DDIM(5)), data, evaluator, 10, 4)
    assert all(torch.equal(again[name], first[name]) for name in ("bound", "flow"))


def test_one_image_has_no_standard_error(evaluator):
    with pytest.raises(ValueError, match="likelihood_images=1: it must be at least 2; 0 is none"):
        MeasurementProtocol(evaluator, likelihood_images=1)


def test_a_model_in_steps_has_a_curve_below_its_own_evaluations(data, real, tmp_path):
    evaluator = Evaluator(num_samples=30, num_real=50, batch_size=30, cache_dir=str(tmp_path))
    protocol = MeasurementProtocol(evaluator, evaluations=8, curve=[2, 4, 6, 5, 7, 8, 15])
    model = InSteps()
    run, _ = measure(model, "mine", tmp_path, data, protocol, real)
    assert run.evaluations == run.protocol["evaluations"] == 7
    assert [point.evaluations for point in run.curve] == [3, 5]  # at most 4, 5 and 6; 7 are its own here
    assert model.network_evaluations == 19
    with model.at_most(5):
        alone = evaluator.evaluate(model, data, progress=False)
    assert run.curve[1].metrics == alone.metrics
    assert all(point.images_per_second > 0 for point in run.curve)
    assert run.likelihood == {}


def test_trained_parameters_are_those_of_both_networks_of_a_gan_and_samples_need_one(make_gan, make_vae):
    gan = make_gan()
    assert parameters_of_sampling(gan) == sum(p.numel() for p in gan.generator.parameters())
    vae = make_vae(num_classes=10)
    of_sampling = [*vae.decoder.parameters(), *vae.likelihood.parameters()]
    assert parameters_of_sampling(vae) == sum(p.numel() for p in of_sampling)
    ddpm = diffusion(DDIM(2), guidance=AutoGuidance(2.0))
    assert parameters_of_sampling(ddpm) == 1
    ddpm.guidance.kept_at.fill_(10)
    assert parameters_of_sampling(ddpm) == 2  # with the guide, which is not trained


def test_the_family_is_what_a_model_says_or_a_subclass_of_it():
    assert [cls.family for cls in (VAE, GAN, DDPM, ImagesOf)] == ["VAE", "GAN", "DDPM", "images"]
    assert type("MyVAE", (VAE,), {}).family == "VAE"


class OnTheRing(GenerativeModule):
    def __init__(self, data):
        super().__init__()
        self.points = next(iter(data.loader("train", batch_size=2000)))["image"]

    @sampling_mode
    def sample(self, n, y=None, *, generator=None):
        return self.points[torch.randint(len(self.points), (n,), generator=generator)]


def test_points_have_metrics_but_no_pixels(tmp_path):
    data = GaussianRing()
    evaluator = Evaluator(num_samples=100, num_real=100, cache_dir=str(tmp_path))
    protocol = MeasurementProtocol(evaluator, likelihood_images=0)
    run, pictures = measure(OnTheRing(data), "ring", tmp_path, data, protocol, RealImages.of(data, evaluator))
    assert run.metrics["modes"] == 8
    assert {"modes", "high_quality"} <= run.errors.keys() == run.metrics.keys()
    assert run.spectrum == []
    assert not {"sharpness", "memorised", "nearest"} & run.metrics.keys()
    assert pictures.keys() == {"samples"}
