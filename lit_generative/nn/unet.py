"""The U-Net of denoising diffusion (Ho et al. 2020, appendix B), for images of any size."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative.checks import check_range
from lit_generative.description import Described
from lit_generative.nn.attention import SelfAttention
from lit_generative.nn.embeddings import ClassEmbedding, TimeEmbedding, check_times
from lit_generative.nn.group_norm import GroupNorm
from lit_generative.nn.layers import draw_glorot
from lit_generative.nn.sizes import ImageShape, check_sizes, check_widths, fold, unfold

__all__ = ["UNet", "UNetConventions"]


@dataclass(frozen=True)
class UNetConventions(Described):
    """Where implementations of this U-Net differ; by default as Ho et al. have it. Matters for weights from elsewhere.

    Args:
        norm_eps: What group normalisation adds to the variance.
        frequency_shift: See :func:`~lit_generative.nn.embeddings.sinusoids`.
        centred_halving: Whether the convolutions that halve the size look one pixel to each side, rather than two to
            the right and down.
    """

    norm_eps: float = 1e-6
    frequency_shift: float = 1.0
    centred_halving: bool = False

    def __post_init__(self) -> None:
        check_range("norm_eps", self.norm_eps, above=0)
        check_range("frequency_shift", self.frequency_shift)


class TimedBlock(nn.Module):
    """x + conv(dropout(act(norm(conv(act(norm(x))) + W c)))), with SiLU; c are features of time and class.

    Args:
        from_width: Channels of x.
        to_width: Channels of the result; if they differ, x goes through a 1x1 convolution in the sum.
        features: The size of c.
        groups, eps: Groups of the normalisations, and what they add to the variance.
        dropout: The probability of a zero.
    """

    def __init__(self, from_width: int, to_width: int, features: int, groups: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(groups, from_width, eps), GroupNorm(groups, to_width, eps)
        self.conv1 = nn.Conv2d(from_width, to_width, 3, padding=1)
        self.time = nn.Linear(features, to_width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(to_width, to_width, 3, padding=1)
        self.shortcut = nn.Identity() if from_width == to_width else nn.Conv2d(from_width, to_width, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Map (B, from_width, H, W), with SiLU(c) (B, features), to (B, to_width, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = F.silu(self.norm2(h, self.time(c)))
        return self.shortcut(x) + self.conv2(self.dropout(h))


class AttentionBlock(nn.Module):
    """x + attention(norm(x)) over all positions; one head if ``head_dim`` is None."""

    def __init__(self, width: int, head_dim: int | None, groups: int, eps: float) -> None:
        super().__init__()
        if head_dim is not None and (head_dim < 1 or width % head_dim):
            raise ValueError(f"head_dim={head_dim} does not divide {width} channels evenly; take a divisor of them")
        self.norm = GroupNorm(groups, width, eps)
        self.attention = SelfAttention(width, heads=width // (head_dim or width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        positions = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        return x + self.attention(positions).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class HalvingConv(nn.Conv2d):
    """A convolution to half the size, rounded up."""

    def __init__(self, width: int, centred: bool) -> None:
        super().__init__(width, width, 3, stride=2, padding=int(centred))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, ceil(H / 2), ceil(W / 2))."""
        if self.padding == (0, 0):
            x = F.pad(x, (0, 1 + x.shape[3] % 2, 0, 1 + x.shape[2] % 2))
        return super().forward(x)


class DoublingConv(nn.Conv2d):
    """Nearest neighbours to twice the size, or a pixel less, and a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, padding=1)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:  # type: ignore[override]
        """Map (B, C, ceil(H / 2), ceil(W / 2)) to (B, C, H, W), where (H, W) is ``size``."""
        x = F.interpolate(x, scale_factor=2, mode="nearest")[..., : size[0], : size[1]]
        return super().forward(x.contiguous(memory_format=torch.channels_last))


class UNetLevel(nn.Module):
    """Residual blocks at one size, each with attention or the identity, and the way to the next size, if any."""

    def __init__(self, blocks: Iterable[nn.Module], attentions: Iterable[nn.Module], resize: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(attentions)
        self.resize = resize

    def __iter__(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        return iter(zip(self.blocks, self.attentions, strict=True))


class UNet(Described, nn.Module):
    """Residual blocks at 1, 1/2, 1/4, ... of the image's size, down and up again, with skips from each to each.

    The defaults are Ho et al.'s for CIFAR-10: 35.7 million parameters. As theirs, the last layers of the network and of
    every block start at 0, the others uniform with the variance of Glorot & Bengio 2010, eq. 16.

    Args:
        image_shape: (C, H, W) of the images. The network itself takes other sizes too.
        widths: Channels at each level, from the finest to the coarsest.
        blocks: Residual blocks a level on the way down; there is one more on the way up.
        attention: The levels with attention after every residual block; 0 is the finest. Ho et al.: those of 16 x 16.
            Between the way down and the way up there always is attention.
        head_dim: Channels of an attention head. None: a single head.
        groups: Groups of the normalisations; divides every width.
        dropout: The probability with which an activation in a residual block is set to 0. Ho et al.: 0.1 for CIFAR-10.
        num_classes: How many classes there are. The label ``num_classes`` means that none is given.
        patch: Patches of so many pixels by as many are folded into channels at first. 2 makes the same widths about
            four times as fast.
        output_multiple: Channels of the output for one of the image: 2 for a learned variance (Nichol & Dhariwal 2021).
        conventions: See :class:`UNetConventions`. None: Ho et al.'s.

    Raises:
        ValueError: If ``widths`` is empty or not of multiples of ``groups``, ``blocks``, ``patch`` or
            ``output_multiple`` is below 1, ``attention`` names a level that is not there, or ``head_dim`` does not
            divide the channels there.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        widths: Sequence[int] = (128, 256, 256, 256),
        blocks: int = 2,
        attention: Sequence[int] = (1,),
        head_dim: int | None = None,
        groups: int = 32,
        dropout: float = 0.0,
        num_classes: int | None = None,
        patch: int = 1,
        output_multiple: int = 1,
        conventions: UNetConventions | None = None,
    ) -> None:
        super().__init__()
        check_sizes(image_shape, blocks=blocks, head_dim=head_dim, groups=groups, patch=patch)
        check_sizes(image_shape, output_multiple=output_multiple, num_classes=num_classes)
        check_range("dropout", dropout, at_least=0, below=1)
        _check(widths, groups, attention)
        self.image_shape, self.widths, self.blocks = tuple(image_shape), tuple(widths), blocks
        self.attention, self.head_dim, self.groups = tuple(sorted(set(attention))), head_dim, groups
        self.dropout, self.num_classes, self.patch, self.output_multiple = dropout, num_classes, patch, output_multiple
        self.conventions = conventions or UNetConventions()
        features, eps = 4 * widths[0], self.conventions.norm_eps
        self.time = TimeEmbedding(widths[0], features, self.conventions.frequency_shift)
        self.classes = ClassEmbedding(None if num_classes is None else num_classes + 1, features)
        self.stem = nn.Conv2d(image_shape[0] * patch**2, widths[0], 3, padding=1)
        block = partial(TimedBlock, features=features, groups=groups, eps=eps, dropout=dropout)
        self._add_levels(block, partial(AttentionBlock, head_dim=head_dim, groups=groups, eps=eps))
        self.norm = GroupNorm(groups, widths[0], eps)
        self.head = nn.Conv2d(widths[0], self.stem.in_channels * output_multiple, 3, padding=1)
        self.apply(_initialise)
        nn.init.zeros_(self.head.weight)
        self.to(memory_format=torch.channels_last)

    def _add_levels(self, block: Callable[[int, int], nn.Module], attention: Callable[[int], nn.Module]) -> None:
        def attentions(level: int, count: int) -> list[nn.Module]:
            return [attention(self.widths[level]) if level in self.attention else nn.Identity() for _ in range(count)]

        down, up, skips, last = [], [], [self.widths[0]], len(self.widths) - 1
        for level, width in enumerate(self.widths):
            channels = [skips[-1], *[width] * self.blocks]
            halve = HalvingConv(width, self.conventions.centred_halving) if level < last else None
            here = [block(i, o) for i, o in pairwise(channels)]
            down.append(UNetLevel(here, attentions(level, self.blocks), halve))
            skips += channels[1:] if halve is None else [*channels[1:], width]
        for level in reversed(range(len(self.widths))):
            channels = [self.widths[min(level + 1, last)], *[self.widths[level]] * (self.blocks + 1)]
            here = [block(i + skips.pop(), o) for i, o in pairwise(channels)]
            up.append(
                UNetLevel(here, attentions(level, self.blocks + 1), DoublingConv(self.widths[level]) if level else None)
            )
        width = self.widths[-1]
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.mid = UNetLevel([block(width, width), block(width, width)], [attention(width), nn.Identity()], None)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the prediction for noisy images.

        Args:
            x: Noisy images (B, C, H, W).
            t: Times (B,) in [0, 1]; the i-th of DDPM's 1,000 steps is (i + 1) / 1000.
            y: Classes (B,), int64; ``num_classes`` where none is given. Needed if ``num_classes`` is set.

        Returns:
            (B, output_multiple * C, H, W), float32.
        """
        check_times(x, t)
        c = F.silu(self.classes(self.time(t), y))
        size = x.shape[2:]
        x = self.stem(fold(x, self.patch).contiguous(memory_format=torch.channels_last))
        skips = [x]
        for level in cast(Iterable[UNetLevel], self.down):
            for block, attention in level:
                skips.append(x := attention(block(x, c)))
            if level.resize is not None:
                skips.append(x := level.resize(x))
        for block, attention in self.mid:
            x = attention(block(x, c))
        for level in cast(Iterable[UNetLevel], self.up):
            for block, attention in level:
                x = attention(block(torch.cat([x, skips.pop()], 1), c))
            if level.resize is not None:
                x = level.resize(x, skips[-1].shape[2:])
        return unfold(self.head(F.silu(self.norm(x))), self.patch, size).float()


def _initialise(module: nn.Module) -> None:
    draw_glorot(module)
    if isinstance(module, TimedBlock):  # apply comes here after the block's own layers
        nn.init.zeros_(module.conv2.weight)
    if isinstance(module, SelfAttention):
        module.initialise()
        nn.init.zeros_(module.out.weight)


def _check(widths: Sequence[int], groups: int, attention: Sequence[int]) -> None:
    check_widths(widths)
    if groups < 1 or any(width % groups for width in widths):
        raise ValueError(f"groups={groups}: widths={list(widths)} are not all multiples of it; take a common divisor")
    if not isinstance(attention, Sequence) or not set(attention) <= set(range(len(widths))):
        shown = list(attention) if isinstance(attention, Sequence) else attention
        raise ValueError(f"attention={shown}: the {len(widths)} levels are numbered from 0, the finest")
