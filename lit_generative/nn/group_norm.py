"""Group normalisation that is fast in channels_last, which bf16 convolutions on a CPU want."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["GroupNorm"]


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu & He 2018, eq. 1), of the same parameters and result as ``torch.nn.GroupNorm``.

    Torch's own walks channels_last tensors on the CPU element by element. There, this one reduces every channel by
    itself, combines those few numbers into the groups' by the law of total variance, and normalises in one pass. A
    shift of whole channels, which a time embedding is, then changes only the few numbers and costs nothing.
    """

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Normalise x + shift.

        Args:
            x: Features (B, C, H, W).
            shift: What is added to x before, per image and channel (B, C); None: nothing.

        Returns:
            (B, C, H, W) of x's type; of float32 under autocast on an accelerator, as ever.
        """
        if x.device.type == "cpu":
            return self._by_channel(x, shift)
        shifted = x if shift is None else x + shift[:, :, None, None].to(x.dtype)
        return F.group_norm(shifted, self.num_groups, self.weight, self.bias, self.eps)

    def _by_channel(self, x: Tensor, shift: Tensor | None) -> Tensor:
        height, width = x.shape[2:]
        positions = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, HW, C), a view in channels_last
        mean, variance = Moments.apply(positions)
        if shift is not None:
            mean = mean + shift
        means = mean.unflatten(1, (self.num_groups, -1))  # (B, G, C/G)
        mu = means.mean(2, keepdim=True)
        between = (means - mu).square().mean(2, keepdim=True)
        within = variance.unflatten(1, (self.num_groups, -1)).mean(2, keepdim=True)
        weight = self.weight.unflatten(0, (self.num_groups, -1)) * (within + between + self.eps).rsqrt()
        offset = self.bias - (mu * weight).flatten(1)
        weight = weight.flatten(1)  # (B, C), like the offset
        if shift is not None:
            offset = offset + shift * weight
        # at least in float32: offset and gain rounded to bf16 would move whole channels where the mean is large
        y = torch.addcmul(offset[:, None], positions.to(mean.dtype), weight[:, None]).to(x.dtype)
        return y.unflatten(1, (height, width)).permute(0, 3, 1, 2)


class Moments(torch.autograd.Function):
    """Each channel's mean and variance, both (B, C) and at least float32, of features (B, N, C).

    The first position is taken off before squaring: E[d^2] - E[d]^2 of large values close together would lose all
    digits, and d being 0 once bounds the loss to a factor of N. The derivatives 1/N and 2 (x - mean) / N are written
    out, for one pass over x instead of autograd's several.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return mean and variance."""
        origin = x[:, :1].to(torch.promote_types(x.dtype, torch.float32))
        d = x - origin
        mean = d.sum(1) / x.shape[1]
        return origin[:, 0] + mean, d.square_().sum(1) / x.shape[1] - mean.square()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:  # type: ignore[override]
        """Keep x and its mean."""
        ctx.save_for_backward(inputs[0], output[0])

    @staticmethod
    def backward(ctx: Any, by_mean: Tensor, by_variance: Tensor) -> Tensor:  # type: ignore[override]
        """Return the gradient with respect to x."""
        x, mean = ctx.saved_tensors
        slope = by_variance * (2 / x.shape[1])
        offset = by_mean / x.shape[1] - slope * mean
        return torch.addcmul(offset[:, None], x.to(mean.dtype), slope[:, None]).to(x.dtype)
