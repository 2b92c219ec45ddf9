"""Variational autoencoders."""

from lit_generative.vae.aggregate import MMD, GaussianKernel, InverseMultiquadric, Kernel, TotalCorrelation
from lit_generative.vae.iwae import IWAE
from lit_generative.vae.ladder import LadderVAE
from lit_generative.vae.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
    GaussianPerImage,
    GaussianPerPixel,
    Laplace,
    Likelihood,
)
from lit_generative.vae.mixture import AggregatePrior, GaussianMixture
from lit_generative.vae.module import VAE
from lit_generative.vae.posteriors import DiagonalNormal, FullNormal, InverseAutoregressive, Posterior
from lit_generative.vae.priors import MixtureOfGaussians, NeuralSpline, Prior, RealNVP, StandardNormal, VampPrior
from lit_generative.vae.quantise import Codebook, GradientEstimator, RotationTrick, StraightThrough
from lit_generative.vae.regularisers import Beta, Capacity, Cyclical, FreeBits, Latents, Regulariser, WarmUp
from lit_generative.vae.vq import VQVAE

__all__ = [
    "IWAE",
    "MMD",
    "VAE",
    "VQVAE",
    "AggregatePrior",
    "Bernoulli",
    "Beta",
    "Capacity",
    "Codebook",
    "ContinuousBernoulli",
    "Cyclical",
    "DiagonalNormal",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "FreeBits",
    "FullNormal",
    "Gaussian",
    "GaussianKernel",
    "GaussianMixture",
    "GaussianPerImage",
    "GaussianPerPixel",
    "GradientEstimator",
    "InverseAutoregressive",
    "InverseMultiquadric",
    "Kernel",
    "LadderVAE",
    "Laplace",
    "Latents",
    "Likelihood",
    "MixtureOfGaussians",
    "NeuralSpline",
    "Posterior",
    "Prior",
    "RealNVP",
    "Regulariser",
    "RotationTrick",
    "StandardNormal",
    "StraightThrough",
    "TotalCorrelation",
    "VampPrior",
    "WarmUp",
]
