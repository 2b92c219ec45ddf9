"""The U-Net of denoising diffusion (Ho et al. 2020, appendix B), for images of any size."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described
from lit_generative.nn.adapters import LowRankAdapters
from lit_generative.nn.attention import SelfAttention
from lit_generative.nn.conditions import (
    Condition,
    channels_beside,
    condition_of,
    embedding_of,
    labels_of,
    with_condition,
)
from lit_generative.nn.embeddings import TimeEmbedding, TimePosition, check_times
from lit_generative.nn.group_norm import GroupNorm
from lit_generative.nn.layers import draw_glorot
from lit_generative.nn.sizes import ImageShape, check_sizes, check_widths, fold, unet_sizes, unfold
from lit_generative.nn.unet_blocks import (
    AttentionBlock,
    DoublingBlock,
    DoublingConv,
    HalvingBlock,
    HalvingConv,
    PixelHead,
    TimedBlock,
    draw_equal_in_patches,
)

__all__ = ["ADMConventions", "DDPMPlusPlusConventions", "UNet", "UNetConventions"]


@dataclass(frozen=True)
class UNetConventions(Described):
    """Where networks of this kind differ beside their sizes; by default as Ho et al. have it.

    Matters for weights from elsewhere, and for other papers' networks: see :class:`ADMConventions` and
    :class:`DDPMPlusPlusConventions`.

    Args:
        norm_eps: What group normalisation adds to the variance.
        frequency_shift: See :func:`~lit_generative.nn.embeddings.sinusoids`.
        centred_halving: Whether the convolutions that halve the size look one pixel to each side, rather than two to
            the right and down.
        scale_shift: See :class:`~lit_generative.nn.unet_blocks.TimedBlock`.
        residual_resizing: The levels that are left by a residual block in place of a convolution, both ways; None: all.
        resized_shortcut: Whether there is a 1x1 convolution beside those.
        skip_scale: What every sum of a block and its input is multiplied by.
        stem_width: Channels of the first layer, and a quarter of the features of time; None: those of the finest level.
        late_attention: Whether on the way up only the last block of a level has attention.
        bare_middle: Whether the attention between the ways down and up is without normalisation.
    """

    norm_eps: float = 1e-6
    frequency_shift: float = 1.0
    centred_halving: bool = False
    scale_shift: bool = False
    residual_resizing: Sequence[int] | None = ()
    resized_shortcut: bool = False
    skip_scale: float = 1.0
    stem_width: int | None = None
    late_attention: bool = False
    bare_middle: bool = False

    def resizes_by_block(self, level: int) -> bool:
        """Whether that level is left by a residual block."""
        return self.residual_resizing is None or level in self.residual_resizing

    def __post_init__(self) -> None:
        check_range("norm_eps", self.norm_eps, above=0)
        check_range("skip_scale", self.skip_scale, above=0)
        check_count("stem_width", self.stem_width, hint="None is the width of the finest level")
        check_range("frequency_shift", self.frequency_shift)


@dataclass(frozen=True)
class ADMConventions(UNetConventions):
    """Dhariwal & Nichol 2021's (ADM). Improved DDPM (2021) has ``residual_resizing: []`` and the rest of them.

    ADM for 64 x 64 pixels: widths 192, 384, 576, 768, 3 blocks, attention at levels 1, 2 and 3, head_dim 64.
    """

    norm_eps: float = 1e-5
    frequency_shift: float = 0.0
    centred_halving: bool = True
    scale_shift: bool = True
    residual_resizing: Sequence[int] | None = None


@dataclass(frozen=True)
class DDPMPlusPlusConventions(UNetConventions):
    """Those of DDPM++ (Song et al. 2021) as EDM has it (Karras et al. 2022, table 7).

    For CIFAR-10: widths 256, 256, 256, 4 blocks, attention at level 1, stem_width 128, and for the time
    :class:`~lit_generative.diffusion.conditioning.LogSNRPosition`.
    """

    residual_resizing: Sequence[int] | None = None
    resized_shortcut: bool = True
    skip_scale: float = 0.5**0.5
    late_attention: bool = True


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
        widths: Channels at each level, from the finest to the coarsest. None: by the images' size
            (:func:`~lit_generative.nn.sizes.unet_sizes`), as with ``attention`` and ``patch``.
        blocks: Residual blocks a level on the way down; there is one more on the way up.
        attention: The levels with attention after every residual block; 0 is the finest. Ho et al.: those of 16 x 16.
            Between the way down and the way up there always is attention. None: by the images' size.
        head_dim: Channels of an attention head. None: a single head.
        groups: Groups of the normalisations; divides every width.
        dropout: The probability with which an activation in a residual block is set to 0. Ho et al.: 0.1 for CIFAR-10.
        num_classes: How many classes there are. The label ``num_classes`` means that none is given.
        patch: Patches of so many pixels by as many are folded into channels at first. 2 makes the same widths about
            four times as fast. None: by the images' size.
        output_multiple: Channels of the output for one of the image: 2 for a learned variance (Nichol & Dhariwal 2021).
        conventions: See :class:`UNetConventions`. None: Ho et al.'s.
        position: What the network is told of the time. None: the number of the step, 1000 t - 1.
        pixel_width: Channels of two convolutions over single pixels at the end, which see the noisy image beside what
            the patches unfold to. None, or patches of one pixel: there are none. Without them the borders of patches
            may show in samples as a grid.
        augmentations: How many numbers tell the network of an image's augmentation; 0: it is not told.
        adapters: Fits a trained network to other data by a few weights beside its own. None: all weights are trained.
        condition: What else it is told; ``num_classes`` is short for one of classes. None: nothing.

    Raises:
        ValueError: If ``widths`` is empty or not of multiples of ``groups``, ``blocks``, ``patch`` or
            ``output_multiple`` is below 1, ``attention`` names a level that is not there, or ``head_dim`` does not
            divide the channels there.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        widths: Sequence[int] | None = (128, 256, 256, 256),
        blocks: int = 2,
        attention: Sequence[int] | None = (1,),
        head_dim: int | None = None,
        groups: int = 32,
        dropout: float = 0.0,
        num_classes: int | None = None,
        patch: int | None = 1,
        output_multiple: int = 1,
        conventions: UNetConventions | None = None,
        position: TimePosition | None = None,
        pixel_width: int | None = None,
        augmentations: int = 0,
        adapters: LowRankAdapters | None = None,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        check_sizes(image_shape, blocks=blocks, head_dim=head_dim, groups=groups, patch=patch)
        check_sizes(image_shape, output_multiple=output_multiple, num_classes=num_classes, pixel_width=pixel_width)
        check_count("augmentations", augmentations, at_least=0)
        check_range("dropout", dropout, at_least=0, below=1)
        by_size = unet_sizes(*image_shape[1:])
        sizes = zip({"patch": patch, "widths": widths, "attention": attention}.items(), by_size, strict=True)
        # a checkpoint has its sizes, whatever later versions choose
        self._init_args |= {name: chosen for (name, given), chosen in sizes if given is None}
        patch = by_size[0] if patch is None else patch
        widths = by_size[1] if widths is None else widths
        attention = by_size[2] if attention is None else attention
        _check(widths, groups, attention)
        self.image_shape, self.widths, self.blocks = tuple(image_shape), tuple(widths), blocks
        self.attention, self.head_dim, self.groups = tuple(sorted(set(attention))), head_dim, groups
        self.condition = condition_of(num_classes, condition)
        self.num_classes = labels_of(self.condition)
        self.dropout, self.patch, self.output_multiple = dropout, patch, output_multiple
        self.conventions = conventions or UNetConventions()
        _check_levels("conventions.residual_resizing", self.conventions.residual_resizing or (), widths)
        self.stem_width = self.conventions.stem_width or widths[0]
        self.time = TimeEmbedding(self.stem_width, 4 * self.stem_width, self.conventions.frequency_shift, position)
        self.classes = embedding_of(self.condition, 4 * self.stem_width)
        channels = image_shape[0] + channels_beside(self.condition, image_shape[0])
        self.stem = nn.Conv2d(channels * patch**2, self.stem_width, 3, padding=1)
        self._add_levels()
        self.norm = GroupNorm(groups, widths[0], self.conventions.norm_eps)
        outputs = image_shape[0] * output_multiple
        has_pixels = pixel_width is not None and patch > 1
        unfolded = outputs if pixel_width is None or patch == 1 else pixel_width
        self.head = nn.Conv2d(widths[0], unfolded * patch**2, 3, padding=1)
        self.pixels = PixelHead(unfolded, image_shape[0], outputs, 4 * self.stem_width) if has_pixels else None
        self.apply(_initialise)
        self.augmentation = nn.Linear(augmentations, 4 * self.stem_width, bias=False) if augmentations else None
        if self.augmentation is not None:
            nn.init.zeros_(self.augmentation.weight)
        if has_pixels:
            draw_equal_in_patches(self.head, patch)
        else:
            nn.init.zeros_(self.head.weight)
        self.to(memory_format=torch.channels_last)
        self.adapters = adapters
        if adapters is not None:
            adapters.adapt(self)

    def _add_levels(self) -> None:
        """Make the residual blocks, their attention, and what is between levels."""
        down, up, skips, last = [], [], [self.stem_width], len(self.widths) - 1
        for level, width in enumerate(self.widths):
            channels = [skips[-1], *[width] * self.blocks]
            here = [self._block(i, o) for i, o in pairwise(channels)]
            down.append(UNetLevel(here, self._attentions(level, self.blocks), self._halving(level)))
            skips += channels[1:] if level == last else [*channels[1:], width]
        for level in reversed(range(len(self.widths))):
            channels = [self.widths[min(level + 1, last)], *[self.widths[level]] * (self.blocks + 1)]
            here = [self._block(i + skips.pop(), o) for i, o in pairwise(channels)]
            attentions = self._attentions(level, self.blocks + 1)
            if self.conventions.late_attention:
                attentions[:-1] = [nn.Identity() for _ in attentions[:-1]]
            up.append(UNetLevel(here, attentions, self._doubling(level)))
        self.down, self.up, width = nn.ModuleList(down), nn.ModuleList(up), self.widths[-1]
        middle = self._attention(width, is_normalised=not self.conventions.bare_middle)
        self.mid = UNetLevel([self._block(width, width), self._block(width, width)], [middle, nn.Identity()], None)

    def _block(self, from_width: int, to_width: int, cls: type[TimedBlock] = TimedBlock) -> TimedBlock:
        like = self.conventions
        return cls(
            from_width,
            to_width,
            features=4 * self.stem_width,
            groups=self.groups,
            eps=like.norm_eps,
            dropout=self.dropout,
            scale_shift=like.scale_shift,
            skip_scale=like.skip_scale,
            has_shortcut=like.resized_shortcut and cls is not TimedBlock,
        )

    def _attention(self, width: int, is_normalised: bool = True) -> AttentionBlock:
        like = self.conventions
        return AttentionBlock(width, self.head_dim, self.groups, like.norm_eps, like.skip_scale, is_normalised)

    def _attentions(self, level: int, count: int) -> list[nn.Module]:
        has_any = level in self.attention
        return [self._attention(self.widths[level]) if has_any else nn.Identity() for _ in range(count)]

    def _halving(self, level: int) -> nn.Module | None:
        """Return the way from a level to the next coarser one, if there is one."""
        if level == len(self.widths) - 1:
            return None
        width = self.widths[level]
        if self.conventions.resizes_by_block(level):
            return self._block(width, width, HalvingBlock)
        return HalvingConv(width, self.conventions.centred_halving)

    def _doubling(self, level: int) -> nn.Module | None:
        """Return the way from a level to the next finer one, if there is one."""
        if level == 0:
            return None
        width = self.widths[level]
        if self.conventions.resizes_by_block(level):
            return self._block(width, width, DoublingBlock)
        return DoublingConv(width)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, augmentation: Tensor | None = None) -> Tensor:
        """Return the prediction for noisy images.

        Args:
            x: Noisy images (B, C, H, W).
            t: Times (B,) in [0, 1]; the i-th of DDPM's 1,000 steps is (i + 1) / 1000.
            y: What the condition says, (B, ...): classes (B,), int64, ``num_classes`` where none is given. Needed if
                there is a condition.
            augmentation: What was done to the images, (B, augmentations), 0 where nothing was. None: nothing.

        Returns:
            (B, output_multiple * C, H, W), float32.
        """
        check_times(x, t)
        c = self.classes(self.time(t), y)
        if augmentation is not None:
            c = c + self._told(augmentation)
        c = F.silu(c)
        size, noisy = x.shape[2:], x
        x = with_condition(self.condition, x, y)
        x = self.stem(fold(x, self.patch).contiguous(memory_format=torch.channels_last))
        skips = [x]
        for level in cast(Iterable[UNetLevel], self.down):
            for block, attention in level:
                skips.append(x := attention(block(x, c)))
            if level.resize is not None:
                skips.append(x := level.resize(x, c))
        for block, attention in self.mid:
            x = attention(block(x, c))
        for level in cast(Iterable[UNetLevel], self.up):
            for block, attention in level:
                x = attention(block(torch.cat([x, skips.pop()], 1), c))
            if level.resize is not None:
                x = level.resize(x, skips[-1].shape[2:], c)
        x = unfold(self.head(F.silu(self.norm(x))), self.patch, size)
        return (x if self.pixels is None else self.pixels(x, noisy, c)).float()

    def _told(self, augmentation: Tensor) -> Tensor:
        if self.augmentation is None:
            raise ValueError("augmentations=0: the network cannot be told of any; it needs 9 for ConditionalAugment")
        return self.augmentation(augmentation)


def _initialise(module: nn.Module) -> None:
    draw_glorot(module)
    if isinstance(module, TimedBlock):  # apply comes here after the block's own layers
        nn.init.zeros_(module.conv2.weight)
    if isinstance(module, PixelHead):
        nn.init.zeros_(module.last.weight)
    if isinstance(module, SelfAttention):
        module.initialise()
        nn.init.zeros_(module.out.weight)


def _check(widths: Sequence[int], groups: int, attention: Sequence[int]) -> None:
    check_widths(widths)
    if groups < 1 or any(width % groups for width in widths):
        raise ValueError(f"groups={groups}: widths={list(widths)} are not all multiples of it; take a common divisor")
    _check_levels("attention", attention, widths)


def _check_levels(name: str, levels: Sequence[int], widths: Sequence[int]) -> None:
    if not isinstance(levels, Sequence) or not set(levels) <= set(range(len(widths))):
        shown = list(levels) if isinstance(levels, Sequence) else levels
        raise ValueError(f"{name}={shown}: the {len(widths)} levels are numbered from 0, the finest")
