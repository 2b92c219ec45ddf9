"""One small model of every kind, for what all of them have to do."""

from collections.abc import Callable
from typing import Any

import torch

from lit_generative import DDPM, GAN, VAE, GenerativeModule
from lit_generative.diffusion import DDIM, CosineSchedule, Latents, VelocityPrediction
from lit_generative.gan import R1, AdaptiveAugment, DiffAugment, NonSaturatingLoss
from lit_generative.nn import (
    CodeTransformer,
    ConvDecoder,
    ConvEncoder,
    DCGANDiscriminator,
    DCGANGenerator,
    DiT,
    LadderNetwork,
    MLPDecoder,
    MLPEncoder,
    PatchDiscriminator,
    SpatialDecoder,
    SpatialEncoder,
    SpatialGaussianEncoder,
    UNet,
)
from lit_generative.vae import (
    VAEGAN,
    VQGAN,
    VQVAE,
    Adversary,
    Codebook,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    InverseAutoregressivePosterior,
    LadderVAE,
    RealNVPPrior,
)

SHAPE = (1, 28, 28)


def vae() -> VAE:
    encoder, decoder = (cls(SHAPE, 4, widths=(8, 12)) for cls in (ConvEncoder, ConvDecoder))
    return VAE(encoder, decoder, DiscretizedLogisticLikelihood(), 4)


def spatial_vae() -> VAE:
    encoder = SpatialGaussianEncoder(SHAPE, 3, widths=(8, 12))
    return VAE(encoder, SpatialDecoder(SHAPE, 3, widths=(8, 12)), GaussianLikelihood())


def vae_with_flows() -> VAE:
    posterior = InverseAutoregressivePosterior(4, hidden=8)
    encoder = MLPEncoder(SHAPE, 4, hidden=(16,), posterior=posterior)
    return VAE(encoder, MLPDecoder(SHAPE, 4, hidden=(16,)), GaussianLikelihood(), 4, prior_model=RealNVPPrior(4))


def ladder_vae() -> LadderVAE:
    network = LadderNetwork(SHAPE, "14x1,7x1,1x1", (8, 12, 16), hidden=4, latent_channels=2)
    return LadderVAE(network, DiscretizedLogisticLikelihood())


def vqvae() -> VQVAE:
    encoder, decoder = (cls(SHAPE, 4, widths=(8, 12)) for cls in (SpatialEncoder, SpatialDecoder))
    return VQVAE(encoder, decoder, DiscretizedLogisticLikelihood(), Codebook(16, 4), CodeTransformer(16, 16, 1, 2))


def vaegan() -> VAEGAN:
    encoder, decoder = (cls(SHAPE, 4, widths=(8, 12)) for cls in (ConvEncoder, ConvDecoder))
    return VAEGAN(
        encoder=encoder, decoder=decoder, likelihood=GaussianLikelihood(), latent_dim=4, adversary=adversary()
    )


def vqgan() -> VQGAN:
    encoder, decoder = (cls(SHAPE, 4, widths=(8, 12)) for cls in (SpatialEncoder, SpatialDecoder))
    parts = {"encoder": encoder, "decoder": decoder, "likelihood": GaussianLikelihood(), "codebook": Codebook(16, 4)}
    return VQGAN(**parts, code_prior=CodeTransformer(16, 16, 1, 2), adversary=adversary(features_weight=0.01))


def adversary(**options: Any) -> Adversary:
    penalties = [R1(0.1, every=2)]
    return Adversary(PatchDiscriminator(SHAPE, (8, 8)), penalties=penalties, after_images=0, **options)


def gan() -> GAN:
    generator = DCGANGenerator(SHAPE, 8, widths=(4, 8))
    discriminator = DCGANDiscriminator(SHAPE, widths=(4, 8), batch_norm=False)
    options = {"penalties": [R1(0.1, every=2)], "augment": AdaptiveAugment(DiffAugment())}
    return GAN(generator, discriminator, NonSaturatingLoss(), 8, **options)


def ddpm() -> DDPM:
    network = UNet(SHAPE, widths=(8, 8), blocks=1, groups=4)
    return DDPM(network, SHAPE, CosineSchedule(), VelocityPrediction(), sampler=DDIM(4))


def transformer() -> DDPM:
    return DDPM(DiT(SHAPE, patch=7, dim=16, depth=1, heads=2), SHAPE, sampler=DDIM(4))


def latent_ddpm() -> DDPM:
    latents = Latents(spatial_vae())
    latents.is_fitted.fill_(True)  # so that it is trained without a data module, too
    network = UNet(latents.shape, widths=(8, 8), blocks=1, groups=4)
    return DDPM(network, SHAPE, CosineSchedule(), VelocityPrediction(), sampler=DDIM(4), latents=latents)


def _seeded(make: Callable[[], GenerativeModule]) -> Callable[[], GenerativeModule]:
    def seeded() -> GenerativeModule:
        torch.manual_seed(0)
        return make()

    return seeded


ALL = (vae, spatial_vae, vae_with_flows, ladder_vae, vqvae, vaegan, vqgan, gan, ddpm, transformer, latent_ddpm)
MODELS = {make.__name__: _seeded(make) for make in ALL}
