"""Variational autoencoders."""

from lit_generative.vae.adversarial import VAEGAN, VQGAN
from lit_generative.vae.adversary import Adversary
from lit_generative.vae.aggregate import (
    GaussianKernel,
    InverseMultiquadricKernel,
    Kernel,
    MMDRegulariser,
    TotalCorrelationRegulariser,
)
from lit_generative.vae.iwae import IWAE
from lit_generative.vae.ladder import LadderVAE
from lit_generative.vae.likelihoods import (
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    GaussianLikelihood,
    GaussianPerImageLikelihood,
    GaussianPerPixelLikelihood,
    LaplaceLikelihood,
    Likelihood,
)
from lit_generative.vae.mixture import AggregatePrior, GaussianMixture
from lit_generative.vae.module import VAE
from lit_generative.vae.posteriors import (
    DiagonalNormalPosterior,
    FullNormalPosterior,
    InverseAutoregressivePosterior,
    Posterior,
)
from lit_generative.vae.priors import (
    MixtureOfGaussiansPrior,
    NeuralSplinePrior,
    Prior,
    RealNVPPrior,
    StandardNormalPrior,
    VampPrior,
)
from lit_generative.vae.quantise import Codebook, GradientEstimator, RotationTrick, StraightThrough
from lit_generative.vae.regularisers import (
    BetaRegulariser,
    CapacityRegulariser,
    CyclicalRegulariser,
    FreeBitsRegulariser,
    LatentBatch,
    Regulariser,
    WarmUpRegulariser,
)
from lit_generative.vae.vq import VQVAE
