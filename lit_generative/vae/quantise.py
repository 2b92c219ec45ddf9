"""Vector quantisation: a codebook that follows the encoder, and gradients past the choice of a code."""

from abc import ABC, abstractmethod
from math import ceil
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described
from lit_generative.numerics import FullPrecisionModule, at_least_single
from lit_generative.processes import world_size

__all__ = ["Codebook", "GradientEstimator", "Quantised", "RotationTrick", "StraightThrough", "perplexity"]

ROWS = 2**14  # features compared with all codes at a time, so that the distances stay small


class GradientEstimator(Described, ABC):
    """How a loss of codes q becomes a gradient of the features e that chose them; the choice itself has none."""

    @abstractmethod
    def __call__(self, e: Tensor, q: Tensor) -> Tensor:
        """Return q (N, D), with a gradient for ``e`` (N, D)."""


class StraightThrough(GradientEstimator):
    """The gradient of q is that of e, unchanged (van den Oord et al. 2017, section 3.2)."""

    def __call__(self, e: Tensor, q: Tensor) -> Tensor:
        """Return e + sg[q - e], (N, D)."""
        return e + (q - e).detach()


class RotationTrick(GradientEstimator):
    """q is e turned and stretched, by a map that counts as constant (Fifty et al. 2024, section 4.2).

    q = lambda R e with lambda = |q| / |e| and R the rotation from e to q in the plane of the two; the gradient of e is
    lambda R^T times that of q, so that the angle between gradient and code stays what it was. By reflections,
    R = I - 2 r r^T + 2 q^ e^^T with r = (e^ + q^) / |e^ + q^| and ^ for unit vectors (their section 4.3).
    """

    def __call__(self, e: Tensor, q: Tensor) -> Tensor:
        """Return lambda R e, (N, D); it equals q up to rounding."""
        with torch.no_grad():
            stretch = q.norm(dim=1, keepdim=True) / e.norm(dim=1, keepdim=True).clamp_min(1e-6)
            e_unit, q_unit = F.normalize(e, dim=1, eps=1e-6), F.normalize(q, dim=1, eps=1e-6)
            r = F.normalize(e_unit + q_unit, dim=1, eps=1e-6)
        along_r, along_e = (e * r).sum(1, keepdim=True), (e * e_unit).sum(1, keepdim=True)
        return stretch * (e - 2 * along_r * r + 2 * along_e * q_unit)


class Quantised(NamedTuple):
    """What a :class:`Codebook` makes of features e (B, D, h, w).

    Attributes:
        q: The vectors of the codes, (B, D, h, w), float32, with a gradient for e.
        codes: Their indices, (B, h, w), int64.
        commitment: |e - sg[q]|^2 of each image, (B,), summed over its features.
    """

    q: Tensor
    codes: Tensor
    commitment: Tensor


class Codebook(Described, FullPrecisionModule):
    """K vectors of D numbers, each the moving average of the features that are nearest to it.

    They follow the encoder as it is trained; an average of its weights goes with the same average of them.

    With n_k features of a batch nearest to code k (van den Oord et al. 2017, appendix A.1, eq. 6 to 8):
    N_k <- decay N_k + (1 - decay) n_k, m_k <- decay m_k + (1 - decay) sum of these features, code k = m_k / N_k.

    A code that is hardly used is put where a random feature of the batch is, and counts as used like the average code
    from then on; so the first batch chooses the first codes. That and the averages are over the batches of all
    processes, which keep the same codebook.

    Args:
        num_codes: K.
        code_dim: D, the channels of the encoder's features.
        decay: The averages' decay, in [0, 1).
        restart_below: The use of a code, as a share of the mean use, below which it is restarted; 0: never, but then
            nothing places the first codes either, and many may stay unused.
        estimator: How gradients get past the choice of a code. None: the rotation trick.

    Raises:
        ValueError: If an argument is out of its range.
    """

    learned_buffers = ("codes",)

    def __init__(
        self,
        num_codes: int = 256,
        code_dim: int = 32,
        decay: float = 0.99,
        restart_below: float = 0.03,
        estimator: GradientEstimator | None = None,
    ) -> None:
        super().__init__()
        for name, count in {"num_codes": num_codes, "code_dim": code_dim}.items():
            check_count(name, count)
        for name, share in {"decay": decay, "restart_below": restart_below}.items():
            check_range(name, share, at_least=0, below=1)
        self.num_codes, self.code_dim = num_codes, code_dim
        self.decay = decay
        self.restart_below = restart_below
        self.estimator = estimator or RotationTrick()
        self.codes = nn.Buffer(torch.randn(num_codes, code_dim))
        self.counts = nn.Buffer(torch.zeros(num_codes))
        self.sums = nn.Buffer(torch.zeros(num_codes, code_dim))

    def forward(self, e: Tensor) -> Quantised:
        """Replace features ``e`` (B, D, h, w) by the nearest codes; in training, move the codes afterwards.

        Raises:
            ValueError: If the features have other channels than ``code_dim``.
        """
        if e.shape[1] != self.code_dim:
            raise ValueError(
                f"code_dim={self.code_dim}, but the encoder puts out {e.shape[1]} channels: make them equal"
            )
        with torch.autocast(e.device.type, enabled=False):  # bf16 cannot tell near codes apart
            rows = at_least_single(e).movedim(1, 3).flatten(0, 2)  # (B h w, D)
            indices = self.nearest(rows)
            q = self.codes[indices]
            commitment = (rows - q).square().sum(1).unflatten(0, (len(e), -1)).sum(1)
            passed = self.estimator(rows, q)
            if self.training:
                self.update(rows.detach(), indices)
        codes = indices.view(len(e), *e.shape[2:])
        return Quantised(passed.view(*codes.shape, -1).movedim(3, 1), codes, commitment)

    def lookup(self, codes: Tensor) -> Tensor:
        """Return the vectors (B, D, h, w) of codes (B, h, w)."""
        return self.codes[codes].movedim(3, 1)

    @torch.no_grad()
    def nearest(self, e: Tensor) -> Tensor:
        """Return the indices (N,) of the codes nearest to ``e`` (N, D): argmin_k |e - c_k|^2 (eq. 2)."""
        half_squares = self.codes.square().sum(1) / 2  # |e - c|^2 / 2 = |e|^2 / 2 - e.c + |c|^2 / 2
        return torch.cat([(half_squares - part @ self.codes.T).argmin(1) for part in e.split(ROWS)])

    @torch.no_grad()
    def update(self, e: Tensor, indices: Tensor) -> None:
        """Average over features ``e`` (N, D) and the codes (N,) nearest to them, and restart codes of little use."""
        found = torch.zeros(self.num_codes, 1 + self.code_dim, device=e.device)
        found.index_add_(0, indices, torch.cat([torch.ones_like(e[:, :1]), e], dim=1))
        if world_size() > 1:
            dist.all_reduce(found)
        self.counts.lerp_(found[:, 0], 1 - self.decay)
        self.sums.lerp_(found[:, 1:], 1 - self.decay)
        is_used = self.counts[:, None] > 0
        self.codes.copy_(torch.where(is_used, self.sums / self.counts[:, None].clamp_min(1e-12), self.codes))
        if self.restart_below:
            self._restart(self._candidates(e))

    def _restart(self, candidates: Tensor) -> None:
        mean = self.counts.mean()
        is_dead = self.counts < self.restart_below * mean
        self.codes.copy_(torch.where(is_dead[:, None], candidates, self.codes))
        self.counts.copy_(torch.where(is_dead, mean, self.counts))
        self.sums.copy_(torch.where(is_dead[:, None], mean * candidates, self.sums))

    def _candidates(self, e: Tensor) -> Tensor:
        """Return K features (K, D) drawn from those of all processes, the same in each of them.

        They are drawn whether they are needed or not, so that a step's other noise does not depend on that.
        """
        world = world_size()
        share = ceil(self.num_codes / world)
        chosen = torch.randperm(len(e), device=e.device).repeat(ceil(share / len(e)))[:share]
        parts = [e[chosen]]
        if world > 1:
            parts = [torch.empty_like(parts[0]) for _ in range(world)]
            dist.all_gather(parts, e[chosen])
        return torch.stack(parts, dim=1).flatten(0, 1)[: self.num_codes]  # by turns of each process


def perplexity(codes: Tensor, num_codes: int) -> Tensor:
    """Return exp(-sum_k p_k log p_k), with p_k the share of code k among ``codes``: how many are used, in effect."""
    p = torch.bincount(codes.flatten(), minlength=num_codes) / codes.numel()
    return torch.special.entr(p).sum().exp()
