"""Normalising flows of zuko as distributions of latents."""

from collections.abc import Iterable
from functools import partial
from math import exp
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from zuko.distributions import NormalizingFlow
from zuko.transforms import MonotonicAffineTransform

__all__ = ["AFFINE", "FlowDistribution", "identity_at_first"]

AFFINE: dict[str, Any] = {"univariate": partial(MonotonicAffineTransform, slope=exp(-2)), "activation": nn.SiLU}
"""Options of affine transforms, none of which scales by more than e^2."""


class FlowDistribution(Distribution):
    """What a flow makes of its base distribution, in float32 under autocast too: a density is as exact as its map."""

    arg_constraints = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, flow: NormalizingFlow) -> None:
        self.flow = flow
        super().__init__(flow.batch_shape, flow.event_shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p, in nats."""
        with self.full_precision():
            return self.flow.log_prob(value)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw, differentiably."""
        with self.full_precision():
            return self.flow.rsample(torch.Size(sample_shape))

    def full_precision(self) -> torch.autocast:
        """Return a context without autocast, where the flow is."""
        return torch.autocast(self.flow.base.mean.device.type, enabled=False)


def identity_at_first(transforms: Iterable[nn.Module]) -> nn.ModuleList:
    """Return affine transforms whose last layers, or of one dimension whose shift and scale, are set to 0."""
    kept = nn.ModuleList(transforms)
    for transform in kept:
        for parameter in list(transform.parameters())[-2:]:
            nn.init.zeros_(parameter)
    return kept
