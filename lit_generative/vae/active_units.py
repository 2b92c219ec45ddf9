"""How many latent dimensions say anything of an image."""

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["ActiveUnits"]


class ActiveUnits(Metric):
    """The number of latent dimensions whose posterior mean varies over images: Var_x(E_q[z_j]) > 0.01.

    That is Burda et al.'s (2016, section 5.2). The other dimensions are the prior's, whatever the image.

    Args:
        latent_dim: The size of z.
    """

    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(latent_dim), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(latent_dim), dist_reduce_fx="sum")

    def update(self, means: Tensor) -> None:
        """Take the means of q(z|x) of a batch, (B, latent_dim)."""
        means = means.float()
        # not in place: after `validate` the states are inference tensors, which `fit` could not add to
        self.count = self.count + len(means)
        self.total = self.total + means.sum(0)
        self.squares = self.squares + means.square().sum(0)

    def compute(self) -> Tensor:
        """Return the number, an integer scalar."""
        variances = self.squares / self.count - (self.total / self.count).square()
        return (variances > 0.01).sum()
