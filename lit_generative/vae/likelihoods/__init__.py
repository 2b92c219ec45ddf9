"""Likelihoods p(x|z): from what a decoder puts out, (B, C, H, W), to a distribution over images in [-1, 1].

Each returns a ``torch.distributions`` object whose ``log_prob`` of images (B, C, H, W) is (B,), in nats, summed over
channels and pixels. Those with more parameters than one a value say by ``channels(C)`` how many channels the decoder's
``output_channels`` must be.
"""

from lit_generative.vae.likelihoods.base import Likelihood
from lit_generative.vae.likelihoods.binary import (
    BernoulliImages,
    BernoulliLikelihood,
    ContinuousBernoulliImages,
    ContinuousBernoulliLikelihood,
)
from lit_generative.vae.likelihoods.densities import (
    GaussianLikelihood,
    GaussianPerImageLikelihood,
    GaussianPerPixelLikelihood,
    LaplaceLikelihood,
)
from lit_generative.vae.likelihoods.logistic import (
    DiscretizedLogisticImages,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureImages,
    DiscretizedLogisticMixtureLikelihood,
)
