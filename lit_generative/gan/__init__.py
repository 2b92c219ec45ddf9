"""Generative adversarial networks."""

from lit_generative.gan.augment import AdaptiveAugment, Augmentation, DiffAugment, InstanceNoise
from lit_generative.gan.losses import (
    AdversarialLoss,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    Wasserstein,
)
from lit_generative.gan.module import GAN
from lit_generative.gan.penalties import R1, R2, GradientPenalty, LabelMatching, Penalty, ZeroCentredPenalty

__all__ = [
    "GAN",
    "R1",
    "R2",
    "AdaptiveAugment",
    "AdversarialLoss",
    "Augmentation",
    "DiffAugment",
    "GradientPenalty",
    "Hinge",
    "InstanceNoise",
    "LabelMatching",
    "LeastSquares",
    "Minimax",
    "NonSaturating",
    "Penalty",
    "Relativistic",
    "Wasserstein",
    "ZeroCentredPenalty",
]
