"""Images of 256 levels in [-1, 1]: what the levels are, and likelihoods in bits per dimension."""

from math import log

from torch import Tensor

__all__ = ["BIN", "HALF_BIN", "bits_per_dim"]

BIN = 2 / 255
"""The distance of two of the levels -1, -1 + 2/255, ..., 1."""

HALF_BIN = BIN / 2


def bits_per_dim(nats: Tensor, num_dims: int) -> Tensor:
    """Return nats of whole images, of any shape, in bits for each of their ``num_dims`` = C H W values."""
    return nats / (num_dims * log(2))
