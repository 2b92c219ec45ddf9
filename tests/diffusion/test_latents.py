"""Diffusion of latents: their moments, their likelihood where it is known exactly, and all that works for pixels."""

import functools
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from known_models import MODELS, SHAPE
from resuming import assert_resumes
from torch import Tensor, nn
from torch.distributions import LowRankMultivariateNormal

from lit_generative import DDPM, VAE, Described, GenerativeModule, ImageDataModule
from lit_generative.contracts import Autoencodes
from lit_generative.diffusion import (
    DDIM,
    AutoGuidance,
    ConditionalAugment,
    CosineSchedule,
    Latents,
    LearnedVariance,
    NoisePrediction,
    Prediction,
    Schedule,
    StaticThresholding,
    VelocityPrediction,
)
from lit_generative.diffusion.schedules import per_image
from lit_generative.nn import MLPDecoder, MLPEncoder, UNet
from lit_generative.vae import GaussianLikelihood

MakeTrainer = Callable[..., L.Trainer]
AUTOENCODERS = ("vae", "spatial_vae", "vae_with_flows", "vqvae")


def images(n: int = 50, subset: int = 200) -> Tensor:
    return next(iter(ImageDataModule(subset=subset).loader("train", batch_size=n)))["image"]


def prepared(latents: Latents, x: Tensor) -> Latents:
    latents.prepare((part, None) for part in x.split(25))
    return latents


class PerPlace(Described, nn.Module):
    """A network for any latents, from one number and the time."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(torch.stack([x, per_image(t, x).expand_as(x)], -1)).squeeze(-1)


def build(autoencoder: str = "spatial_vae", **options: object) -> DDPM:
    latents = prepared(Latents(MODELS[autoencoder]()), images(100))
    torch.manual_seed(0)
    arguments = {"schedule": CosineSchedule(), "prediction": VelocityPrediction(), "sampler": DDIM(4)} | options
    return DDPM(PerPlace(), SHAPE, latents=latents, **arguments)


# -------------------------------------------------------------------- the latents


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_latents_have_mean_0_and_variance_1(name: str) -> None:
    autoencoder = MODELS[name]()
    assert isinstance(autoencoder, Autoencodes)
    x = images(200)
    latents = prepared(Latents(autoencoder, num_images=200), x)
    z = latents.draw(x)
    assert z.shape == (200, *latents.shape)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(latents.shape[0]), atol=0.25, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(latents.shape[0]), atol=0.3, rtol=0)


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_images_of_their_means_are_reconstructions(name: str) -> None:
    autoencoder, x = MODELS[name](), images(20)
    latents = prepared(Latents(autoencoder), x)
    torch.testing.assert_close(latents.images(latents.means(x)), autoencoder.reconstruct(x), atol=1e-4, rtol=1e-4)


def test_what_is_kept_is_what_would_be_encoded() -> None:
    x = images(50)
    keeping, encoding = (prepared(Latents(MODELS["spatial_vae"](), cache=n), x) for n in (100, 0))
    torch.testing.assert_close(keeping.mean, encoding.mean)
    asked = []
    keeping.autoencoder.encoder.register_forward_hook(lambda *_: asked.append(1))
    torch.manual_seed(0)
    drawn = keeping.draw(x[:10])
    assert not asked  # nothing was encoded
    torch.manual_seed(0)
    torch.testing.assert_close(drawn, encoding.draw(x[:10]), atol=1e-4, rtol=1e-4)
    keeping.draw(x[:10].flip(3))  # other images, which are not known
    assert asked


def test_moments_are_learned_once() -> None:
    latents = prepared(Latents(MODELS["spatial_vae"]()), images(50))
    before = latents.mean.clone(), latents.scale.clone()
    prepared(latents, -images(50))
    assert torch.equal(latents.mean, before[0])
    assert torch.equal(latents.scale, before[1])


def test_the_autoencoder_is_neither_trained_nor_in_training_mode() -> None:
    model = build().train()
    assert not any(module.training for module in model.latents.modules())
    model.losses(images(4))["loss"].mean().backward()
    assert all(p.grad is None for p in model.latents.parameters())
    assert all(p.grad is not None for p in model.network.parameters())


# -------------------------------------------------------------------- exactness

LATENT_DIM, DIMS = 4, 28 * 28


class ExactOfGaussian(Described, nn.Module):
    """The noise that is to be expected where each latent is N(mean, std^2), in float64."""

    def __init__(self, schedule: Schedule, prediction: Prediction, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.schedule, self.prediction = schedule, prediction
        self.mean, self.std = (torch.tensor(values).double().view(-1, 1, 1) for values in (mean, std))

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        alpha, sigma = (per_image(level, x_t).double() for level in self.schedule(t))
        return sigma * (x_t - alpha * self.mean) / (alpha**2 * self.std**2 + sigma**2)


@pytest.fixture(scope="module")
def principal() -> tuple[DDPM, Tensor, Tensor]:
    """A linear VAE with the true posterior, a diffusion model of its prior, images, and their log-densities.

    The VAE is probabilistic PCA (Tipping & Bishop 1999, eq. 6 to 8), the prior N(0, I), standardised by wrong moments.
    """
    x = next(iter(ImageDataModule(subset=800).loader("train", batch_size=500)))["image"]
    x = (0.5 * x * 127.5 + 127.5).round() / 127.5 - 1  # neither black nor white
    flat = x.flatten(1).double()
    mean = flat.mean(0)
    variances, axes = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    noise = variances[:-LATENT_DIM].mean()
    variances, axes = variances[-LATENT_DIM:], axes[:, -LATENT_DIM:]
    w = axes * (variances - noise).sqrt()
    encoder, decoder = MLPEncoder(SHAPE, LATENT_DIM, hidden=()), MLPDecoder(SHAPE, LATENT_DIM, hidden=())
    to_z, to_x = encoder.head.linear, next(m for m in decoder.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        to_z.weight.copy_(torch.cat([w.T / variances[:, None], torch.zeros_like(w.T)]))
        to_z.bias.copy_(torch.cat([-(w.T @ mean) / variances, (noise / variances).log()]))
        to_x.weight.copy_(w)
        to_x.bias.copy_(mean)
    latents = Latents(VAE(encoder, decoder, GaussianLikelihood(float(noise.sqrt())), LATENT_DIM))
    m, s = torch.tensor([0.3, -0.2, 0.0, 0.1]), torch.tensor([0.8, 1.2, 1.0, 1.5])
    latents.mean.copy_(m.view(-1, 1, 1))
    latents.scale.copy_(s.view(-1, 1, 1))
    latents.is_fitted.fill_(True)
    schedule = CosineSchedule()
    network = ExactOfGaussian(schedule, NoisePrediction(), (-m / s).tolist(), (1 / s).tolist())
    model = DDPM(network, SHAPE, schedule, NoisePrediction(), latents=latents)
    p = LowRankMultivariateNormal(mean, w, noise.expand(DIMS))
    return model, x[:20], p.log_prob(flat[:20])


def test_the_likelihood_of_a_linear_gaussian_model_is_exact(principal: tuple[DDPM, Tensor, Tensor]) -> None:
    """With the true posterior, log p(x|z) + log p(z) - log q(z|x) is log p(x) at each z; here the prior is a flow."""
    model, x, log_p = principal
    nll = -log_p - DIMS * math.log(2 / 255)  # of the levels, whose bins are narrow
    found = model.likelihoods(x, evaluations=200, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found["flow"].double(), nll, atol=0.2, rtol=0)  # the solver's and the trace's error
    assert (found["bound"] - nll).mean() == pytest.approx(0.3, abs=0.4)  # a thousand steps, of which 200 are drawn


def test_a_wrong_prior_costs_its_divergence(principal: tuple[DDPM, Tensor, Tensor]) -> None:
    """One latent's prior is moved by two standard deviations: -log p(z) rises by 2 - 2 z, from z^2 / 2."""
    model, x, _ = principal
    network: ExactOfGaussian = model.network  # type: ignore[assignment]
    z = model.latents.posterior(x).mean[:, 2]
    right = model.likelihoods(x, evaluations=100, generator=torch.Generator().manual_seed(0))["flow"]
    network.mean[2] += 2
    wrong = model.likelihoods(x, evaluations=100, generator=torch.Generator().manual_seed(0))["flow"]
    network.mean[2] -= 2
    torch.testing.assert_close(wrong - right, 2 - 2 * z, atol=0.6, rtol=0)  # z is drawn, near its mean


def test_latents_without_a_density_have_no_likelihood() -> None:
    assert build("vqvae").likelihoods(images(2), evaluations=4) == {}


# -------------------------------------------------------------------- all that works for pixels


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_a_checkpoint_contains_all_that_sampling_needs(name: str, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(max_epochs=1)
    trainer.fit(MODELS[name](), datamodule=(data := ImageDataModule(subset=100, batch_size=25)))
    trainer.save_checkpoint(tmp_path / "autoencoder.ckpt")
    torch.manual_seed(0)
    model = DDPM(PerPlace(), SHAPE, sampler=DDIM(3), latents=Latents(tmp_path / "autoencoder.ckpt"))
    trainer = make_trainer(max_epochs=1)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    (tmp_path / "autoencoder.ckpt").unlink()
    again = GenerativeModule.load_from_checkpoint(tmp_path / "whole.ckpt")
    first, second = (m.sample(3, generator=torch.Generator().manual_seed(1)) for m in (model, again))
    assert torch.equal(first, second)
    assert first.shape == (3, *SHAPE)
    assert -1 <= first.min() < first.max() <= 1


def test_images_are_edited() -> None:
    model, x = build(), images(3)
    known = torch.zeros(1, 1, 28, 28, dtype=torch.bool)
    known[..., :13] = True
    completed = model.inpaint(x, known, generator=torch.Generator().manual_seed(0))
    assert torch.equal(completed[..., :13], x[..., :13])
    assert not torch.equal(completed[..., 13:], x[..., 13:])
    reconstructed = model.latents.images(model.latents.means(x))
    near, far = (model.sdedit(x, start) for start in (0.02, 1.0))
    assert (near - reconstructed).abs().mean() < (far - reconstructed).abs().mean() + 1e-6
    noise = model.encode(x)
    assert noise.shape == (3, *model.latents.shape)
    torch.testing.assert_close(model.decode(noise), reconstructed, atol=0.05, rtol=0)
    path = model.interpolate(x[:1], x[1:2], steps=3)
    torch.testing.assert_close(path[0], reconstructed[:1], atol=0.05, rtol=0)
    assert [step.shape for step in model.trajectory(2)] == [(2, *SHAPE)] * 5
    assert torch.isfinite(model.loss_by_noise(x, num_levels=3)["noise_mse"]).all()


def test_latents_are_known_where_all_of_their_pixels_are() -> None:
    latents = Latents(MODELS["spatial_vae"]())
    mask = torch.ones(1, 1, 28, 28, dtype=torch.bool)
    mask[..., 9, 9] = False
    known = latents.known(mask)
    assert known.shape == (1, 1, 7, 7)
    assert not known[0, 0, 2, 2]
    assert known.sum() == 48


def test_augmented_images_are_encoded_anew(make_trainer: MakeTrainer) -> None:
    latents = Latents(MODELS["spatial_vae"]())
    network = UNet(latents.shape, (8, 8), 1, (), groups=4, augmentations=9)
    model = DDPM(network, SHAPE, augment=ConditionalAugment(0.5), latents=latents, guidance=AutoGuidance(2.0))
    make_trainer(max_epochs=1).fit(model, datamodule=ImageDataModule(subset=100, batch_size=25))
    assert latents.is_fitted
    assert not latents._kept


# -------------------------------------------------------------------- diffusers' AutoencoderKL


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that diffusers has written."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    sizes = {"block_out_channels": (8, 16), "norm_num_groups": 4, "in_channels": 1, "out_channels": 1}
    path = tmp_path_factory.mktemp("kl")
    diffusers.AutoencoderKL(**blocks, **sizes, latent_channels=2, sample_size=64).save_pretrained(path)
    return path


def test_a_diffusers_folder_makes_the_latents_that_diffusers_makes(folder: Path) -> None:
    import diffusers

    theirs, x = diffusers.AutoencoderKL.from_pretrained(folder), images(6)
    latents = prepared(Latents(folder, image_size=28), images(100))
    assert latents.shape == (2, 14, 14)
    with torch.no_grad():
        q = theirs.encode(x).latent_dist
        torch.testing.assert_close(latents.means(x) * latents.scale + latents.mean, q.mean)
        torch.testing.assert_close(latents.posterior(x).stddev.view_as(q.std), q.std)
        torch.testing.assert_close(latents.images(latents.means(x)), theirs.decode(q.mean).sample.clamp(-1, 1))


def test_a_model_of_a_diffusers_folder_is_one_checkpoint(
    folder: Path, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    model = DDPM(PerPlace(), SHAPE, sampler=DDIM(2), latents=Latents(folder, image_size=28))
    trainer = make_trainer(max_steps=2)
    trainer.fit(model, datamodule=ImageDataModule(subset=100, batch_size=25))
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    again = GenerativeModule.load_from_checkpoint(tmp_path / "whole.ckpt")
    assert torch.equal(*(m.sample(2, generator=torch.Generator().manual_seed(1)) for m in (model, again)))
    assert model.likelihoods(images(2), evaluations=2) == {}


def test_a_bad_folder_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"it has no config.json"):
        Latents(tmp_path)
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"it has no diffusion_pytorch_model.safetensors"):
        Latents(tmp_path)
    shutil.copy(folder / "diffusion_pytorch_model.safetensors", tmp_path)
    with pytest.raises(ValueError, match="image_size=29: the networks halve it 1 times"):
        Latents(tmp_path, image_size=29)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ValueError, match="is of a UNet2DModel"):
        Latents(tmp_path)
    (tmp_path / "config.json").write_text('{"in_channels": 1}')
    with pytest.raises(ValueError, match="do not go together"):
        Latents(tmp_path)
    with pytest.raises(ValueError, match=r"latents.image_size=28 is that of a diffusers folder"):
        Latents(MODELS["vae"](), image_size=28)


# -------------------------------------------------------------------- what does not go


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Latents(), "latents.autoencoder=None"),
        (lambda: Latents(MODELS["gan"]()), "latents.autoencoder is a GAN"),
        (lambda: Latents(MODELS["ladder_vae"]()), "latents.autoencoder is a LadderVAE"),
        (lambda: Latents("nowhere.ckpt"), "nowhere.ckpt: there is no such file"),
        (lambda: Latents(MODELS["vae"](), cache=-1), "cache=-1"),
        (lambda: Latents(MODELS["vae"](), num_images=1), "num_images=1"),
        (lambda: build(sampler=DDIM(4, thresholding=StaticThresholding())), "sampler.thresholding=StaticThresholding"),
        (lambda: build(variance=LearnedVariance()), "variance"),
        (
            lambda: DDPM(UNet(SHAPE, (8,), 1, (), groups=4), SHAPE, latents=Latents(MODELS["spatial_vae"]())),
            r"network.image_shape=\(1, 28, 28\): the latents have \(3, 7, 7\)",
        ),
        (
            lambda: DDPM(PerPlace(), (3, 28, 28), latents=Latents(MODELS["vae"]())),
            r"image_shape=\(3, 28, 28\), but latents.autoencoder knows images of \(1, 28, 28\)",
        ),
    ],
)
def test_what_does_not_go_is_said_at_once(make: Callable[[], object], named: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        make()


def test_a_conditional_autoencoder_needs_as_many_classes(make_vae: Callable[..., VAE]) -> None:
    latents = Latents(make_vae(num_classes=10))
    with pytest.raises(ValueError, match=r"num_classes=None, but latents.autoencoder is conditioned on 10"):
        DDPM(PerPlace(), SHAPE, latents=latents)


def test_without_a_data_module_there_is_one_sentence(make_trainer: MakeTrainer) -> None:
    model = DDPM(PerPlace(), SHAPE, latents=Latents(MODELS["vae"]()))
    loader = ImageDataModule(subset=50).loader("train", batch_size=25)
    with pytest.raises(ValueError, match="latents need a data module"):
        make_trainer(max_steps=1).fit(model, loader)


def test_resumed_equals_unbroken_bit_for_bit(make_trainer: MakeTrainer) -> None:
    make = functools.partial(_unprepared, MODELS["spatial_vae"])
    assert_resumes(make, make_trainer, (4, 7), part="network")


def _unprepared(autoencoder: Callable[[], GenerativeModule]) -> DDPM:
    latents = Latents(autoencoder())
    torch.manual_seed(0)
    return DDPM(PerPlace(), SHAPE, latents=latents, sampler=DDIM(2))
