"""Bounds on log-likelihoods: what is logged of the evidence lower bound, and estimates from many latents an image."""

from collections.abc import Callable, Iterator
from math import inf, log

import torch
from torch import Tensor

from lit_generative.checks import check_count
from lit_generative.eight_bit import bits_per_dim
from lit_generative.vae.likelihoods import Likelihood

__all__ = ["Draw", "estimate_likelihood", "in_parts", "negative_bound"]

VALUES_AT_ONCE = 2**19  # pixels times channels that are decoded together: 668 images of 28x28, some 200 MB of features

Draw = Callable[[int], tuple[Tensor, Tensor]]
"""From n to the bound and the log-weight log p(x, z) / q(z|x) at n latents z of each image, (n, B) each, in nats."""


def negative_bound(likelihood: Likelihood, x: Tensor, nll: Tensor, latents: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ``nelbo``, the sum of -log p(x|z) and of what the latents cost by name, and its terms, (B,), in nats.

    ``bits_per_dim``, of the images ``x``, is there for a discrete likelihood.
    """
    nelbo = sum(latents.values(), nll)
    bits = {"bits_per_dim": bits_per_dim(nelbo, x[0].numel())} if likelihood.is_discrete else {}
    return {"nelbo": nelbo, "nll": nll} | latents | bits


def estimate_likelihood(
    begin: Callable[[Tensor, Tensor | None], Draw], x: Tensor, y: Tensor | None, num_latents: int
) -> dict[str, Tensor]:
    """Return two estimates of -log p of images ``x`` (B, C, H, W) with labels ``y``, (B,), in nats.

    With w_k = p(x, z_k) / q(z_k|x), z_k from q, k = 1, ..., K, ``bound`` is the mean of the negative bound at z_k and
    ``importance_weighted`` is -log of the mean of w_k, which is nearer to -log p(x) and still above it on average
    (Burda et al. 2016, eq. 8). Memory does not grow with K = ``num_latents``.

    Args:
        begin: Prepares the draws of some of the images.
        x: The images.
        y: Labels (B,) of a conditional model.
        num_latents: K.
    """
    check_count("evaluations", num_latents)
    parts = [_estimate(begin(*part), part[0], num_latents) for part in in_parts(x, y, VALUES_AT_ONCE // x[0].numel())]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _estimate(draw: Draw, x: Tensor, num_latents: int) -> dict[str, Tensor]:
    """Return the estimates for images that can be decoded at once, by sums over chunks of the latents."""
    chunk = max(1, VALUES_AT_ONCE // x.numel())
    total, log_sum = torch.zeros(len(x), device=x.device), torch.full((len(x),), -inf, device=x.device)
    for first in range(0, num_latents, chunk):
        bound, log_w = draw(min(chunk, num_latents - first))
        total += bound.sum(0)
        log_sum = torch.logaddexp(log_sum, log_w.logsumexp(0))
    return {"bound": -total / num_latents, "importance_weighted": log(num_latents) - log_sum}


def in_parts(x: Tensor, y: Tensor | None, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield at most ``size`` rows, and at least one, of ``x`` at a time, with their labels if there are any."""
    size = max(1, size)
    labels = [None] * len(x) if y is None else y.split(size)
    yield from zip(x.split(size), labels, strict=False)
