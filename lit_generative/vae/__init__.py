"""Variational autoencoders."""

from lit_generative.vae.likelihoods import Bernoulli, DiscretizedLogistic, Gaussian, Likelihood
from lit_generative.vae.module import VAE

__all__ = ["VAE", "Bernoulli", "DiscretizedLogistic", "Gaussian", "Likelihood"]
