"""What U-Nets of diffusion models are made of: residual blocks told of the time, attention, and ways between sizes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative.nn.attention import SelfAttention
from lit_generative.nn.group_norm import GroupNorm

__all__ = [
    "AttentionBlock",
    "DoublingBlock",
    "DoublingConv",
    "HalvingBlock",
    "HalvingConv",
    "PixelHead",
    "TimedBlock",
    "draw_equal_in_patches",
]


class TimedBlock(nn.Module):
    """x + conv(dropout(act(norm(conv(act(norm(x))) + W c)))), with SiLU; c are features of time and class.

    Args:
        from_width: Channels of x.
        to_width: Channels of the result; if they differ, x goes through a 1x1 convolution in the sum.
        features: The size of c.
        groups, eps: Groups of the normalisations, and what they add to the variance.
        dropout: The probability of a zero.
        scale_shift: Whether c scales and shifts what was normalised, (1 + W_1 c) norm(h) + W_2 c, instead of being
            added before (Nichol & Dhariwal 2021's code; "adaptive group normalisation" of Dhariwal & Nichol 2021).
        skip_scale: What the sum is multiplied by.
        has_shortcut: Whether x goes through the 1x1 convolution in any case.
    """

    def __init__(
        self,
        from_width: int,
        to_width: int,
        features: int,
        groups: int,
        eps: float,
        dropout: float,
        scale_shift: bool = False,
        skip_scale: float = 1.0,
        has_shortcut: bool = False,
    ) -> None:
        super().__init__()
        self.scale_shift, self.skip_scale = scale_shift, skip_scale
        self.norm1, self.norm2 = GroupNorm(groups, from_width, eps), GroupNorm(groups, to_width, eps)
        self.conv1 = nn.Conv2d(from_width, to_width, 3, padding=1)
        self.time = nn.Linear(features, to_width * (1 + scale_shift))
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(to_width, to_width, 3, padding=1)
        is_same = from_width == to_width and not has_shortcut
        self.shortcut = nn.Identity() if is_same else nn.Conv2d(from_width, to_width, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Map (B, from_width, H, W), with SiLU(c) (B, features), to (B, to_width, H, W)."""
        return self.combine(x, F.silu(self.norm1(x)), c)

    def combine(self, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """Return the block's result for x and act(norm(x))."""
        h = self.conv1(h)
        if self.scale_shift:
            scale, shift = self.time(c)[:, :, None, None].chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h, self.time(c))
        return _scaled(self.shortcut(x) + self.conv2(self.dropout(F.silu(h))), self.skip_scale)


class HalvingBlock(TimedBlock):
    """A residual block to half the size, rounded up: x and act(norm(x)) are averaged over 2 x 2 positions."""

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, ceil(H / 2), ceil(W / 2))."""
        h = F.silu(self.norm1(x))
        x, h = (F.avg_pool2d(part, 2, ceil_mode=True, count_include_pad=False) for part in (x, h))
        return self.combine(x, h, c)


class DoublingBlock(TimedBlock):
    """A residual block to twice the size, or a pixel less: x and act(norm(x)) are repeated (nearest neighbours)."""

    def forward(self, x: Tensor, size: Sequence[int], c: Tensor) -> Tensor:  # type: ignore[override]
        """Map (B, C, ceil(H / 2), ceil(W / 2)) to (B, C, H, W), where (H, W) is ``size``."""
        h = F.silu(self.norm1(x))
        return self.combine(doubled(x, size), doubled(h, size), c)


class AttentionBlock(nn.Module):
    """x + attention(norm(x)) over all positions; one head if ``head_dim`` is None.

    Args:
        width: Channels.
        head_dim: Channels of a head, a divisor of ``width``.
        groups, eps: See :class:`TimedBlock`.
        skip_scale: What the sum is multiplied by.
        is_normalised: Whether x is normalised.
    """

    def __init__(
        self,
        width: int,
        head_dim: int | None,
        groups: int,
        eps: float,
        skip_scale: float = 1.0,
        is_normalised: bool = True,
    ) -> None:
        super().__init__()
        if head_dim is not None and (head_dim < 1 or width % head_dim):
            raise ValueError(f"head_dim={head_dim} does not divide {width} channels evenly; take a divisor of them")
        self.skip_scale = skip_scale
        self.norm = GroupNorm(groups, width, eps) if is_normalised else nn.Identity()
        self.attention = SelfAttention(width, heads=width // (head_dim or width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        positions = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        attended = self.attention(positions).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return _scaled(x + attended, self.skip_scale)


class HalvingConv(nn.Conv2d):
    """A convolution to half the size, rounded up."""

    def __init__(self, width: int, centred: bool) -> None:
        super().__init__(width, width, 3, stride=2, padding=int(centred))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Map (B, C, H, W) to (B, C, ceil(H / 2), ceil(W / 2)); c makes no difference."""
        if self.padding == (0, 0):
            x = F.pad(x, (0, 1 + x.shape[3] % 2, 0, 1 + x.shape[2] % 2))
        return super().forward(x)


class DoublingConv(nn.Conv2d):
    """Nearest neighbours to twice the size, or a pixel less, and a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, padding=1)

    def forward(self, x: Tensor, size: Sequence[int], c: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Map (B, C, ceil(H / 2), ceil(W / 2)) to (B, C, H, W), where (H, W) is ``size``; c makes no difference."""
        return super().forward(doubled(x, size))


class PixelHead(nn.Module):
    """conv(act(conv([h, x]) (1 + W_1 c) + W_2 c)): the end of a network that works on patches, over single pixels.

    Convolutions see no borders of patches, so that what is on both sides of one can be made to fit; and they have
    the noisy image x itself, so that its finest details need not go through the patches' features.

    Args:
        width: Channels of h.
        channels: Channels of x.
        outputs: Channels of the result.
        features: The size of c.
    """

    def __init__(self, width: int, channels: int, outputs: int, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width + channels, width, 3, padding=1)
        self.time = nn.Linear(features, 2 * width)
        self.last = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, h: Tensor, x: Tensor, c: Tensor) -> Tensor:
        """Map features (B, width, H, W), images (B, channels, H, W) and SiLU(c) to (B, outputs, H, W)."""
        scale, shift = self.time(c)[:, :, None, None].chunk(2, dim=1)
        h = self.first(torch.cat([h, x.to(h.dtype)], 1).contiguous(memory_format=torch.channels_last))
        return self.last(F.silu(h * (1 + scale) + shift))


@torch.no_grad()
def draw_equal_in_patches(layer: nn.Conv2d, patch: int) -> None:
    """Give the pixels of a patch that a layer's channels unfold to the same weights (ICNR, Aitken et al. 2017).

    Unfolding then starts as nearest neighbours do: without a pattern within a patch.
    """
    layer.weight.copy_(layer.weight[:: patch**2].repeat_interleave(patch**2, 0))


def doubled(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return nearest neighbours (B, C, *size) of x (B, C, ...)."""
    x = F.interpolate(x, scale_factor=2, mode="nearest")[..., : size[0], : size[1]]
    return x.contiguous(memory_format=torch.channels_last)


def _scaled(x: Tensor, scale: float) -> Tensor:
    return x if scale == 1 else scale * x
