"""Couplings: which noise an image is mixed with in training."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lit_generative.description import Described
from lit_generative.diffusion.samplers import Sampler

__all__ = ["Coupling", "OptimalTransportCoupling"]


class Coupling(Described, ABC):
    """A joint distribution of images and noise that leaves each its own."""

    def check(self, sampler: Sampler) -> None:
        """Refuse a sampler that draws noise: it would not be that of the images."""
        if not sampler.is_deterministic:
            name, own = type(sampler).__name__, type(self).__name__
            raise ValueError(f"sampler={name}: it draws noise, which is not that of coupling={own}; take HeunSampler")

    @abstractmethod
    def __call__(self, x: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the noise for each of the images ``x`` (B, ...) of labels ``y`` (B,), among ``noise`` (B, ...)."""


class OptimalTransportCoupling(Coupling):
    """The pairs of a batch that are nearest to each other in sum (OT-CFM, Tong et al. 2024).

    That is min_pi sum_i |x_i - eps_pi(i)|^2 over permutations pi. Their straight lines hardly cross, so that the ODE's
    paths are straighter and need fewer steps. The assignment is exact, within each label, as otherwise noise would tell
    of the label; it is made on the CPU, in a few milliseconds for some hundred images. Each process pairs its own
    batch. Larger batches couple better.
    """

    def __call__(self, x: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the noise in another order."""
        from scipy.optimize import linear_sum_assignment  # which takes longer to import than the rest of us

        costs = torch.cdist(x.flatten(1).float(), noise.flatten(1).float()).square().cpu()
        groups = torch.zeros(len(x), dtype=torch.long) if y is None else y.cpu()
        order = torch.arange(len(x))
        for label in groups.unique():
            members = (groups == label).nonzero()[:, 0]
            _, chosen = linear_sum_assignment(costs[members][:, members].numpy())
            order[members] = members[torch.from_numpy(chosen)]
        return noise[order.to(noise.device)]
