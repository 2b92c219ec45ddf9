"""Generative adversarial networks."""

from lit_generative.gan.augment import (
    AdaptiveAugment,
    Augmentation,
    ComposedAugment,
    DiffAugment,
    GeometricAugment,
    InstanceNoiseAugment,
)
from lit_generative.gan.health import GANHealth
from lit_generative.gan.losses import (
    AdversarialLoss,
    HingeLoss,
    LeastSquaresLoss,
    MinimaxLoss,
    NonSaturatingLoss,
    RelativisticLoss,
    WassersteinLoss,
)
from lit_generative.gan.module import GAN
from lit_generative.gan.penalties import R1, R2, GradientPenalty, LabelMatchingPenalty, Penalty, ZeroCentredPenalty
