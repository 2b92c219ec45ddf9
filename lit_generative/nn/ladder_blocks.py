"""What a ladder of latents is built of: blocks, the way up to the features and the way down through the latents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor, nn
from torch.distributions import Independent, kl_divergence
from torch.nn import functional as F

from lit_generative.nn.embeddings import ClassEmbedding
from lit_generative.nn.heads import diagonal_normal
from lit_generative.nn.sizes import Crop

__all__ = ["BottleneckBlock", "BottomUpEncoder", "Draw", "LadderStage", "LatentLevel", "TopDownBlock", "TopDownDecoder"]

Draw = Callable[[Independent], Tensor]
"""What to take of a posterior or a prior: a sample, or the mean."""


@dataclass(frozen=True)
class LatentLevel:
    """The latents of one block, (B, Z, H, W), and where they come from.

    Attributes:
        z: What was drawn: from q, if there is one.
        p: p(z_l | z_<l), event shape (Z, H, W).
        q: q(z_l | x, z_<l); None if there is no image.
    """

    z: Tensor
    p: Independent
    q: Independent | None

    def kl(self) -> Tensor:
        """Return KL(q || p) in closed form, (B,), in nats."""
        return kl_divergence(self._posterior, self.p)

    def log_ratio(self) -> Tensor:
        """Return log p(z) - log q(z), (B,), the level's part of the logarithm of an importance weight."""
        return self.p.log_prob(self.z) - self._posterior.log_prob(self.z)

    @property
    def _posterior(self) -> Independent:
        if self.q is None:
            raise ValueError("q=None: latents drawn from the prior have no posterior; descend with features of images")
        return self.q


@dataclass(frozen=True)
class LadderStage:
    """The part of a ladder at one resolution.

    Attributes:
        size: (H, W) of the feature maps.
        factor: How many times finer the next finer stage is; 1 for the finest.
        width: Channels.
        encoder_blocks: Blocks of the way up.
        decoder_blocks: Blocks of the way down.
    """

    size: tuple[int, int]
    factor: int
    width: int
    encoder_blocks: int
    decoder_blocks: int


class BottleneckBlock(nn.Module):
    """Four convolutions of kernels 1, 3, 3 and 1, each of a SiLU (Child 2021, figure 3).

    Args:
        from_width: Channels that come in.
        to_width: Channels that go out.
        hidden: Channels in between.
        size: (H, W); where neither is above 2, all kernels are 1.
        scale: A factor of the last weights at first.
    """

    def __init__(self, from_width: int, to_width: int, hidden: int, size: tuple[int, int], scale: float = 1.0) -> None:
        super().__init__()
        kernel = 3 if max(size) > 2 else 1
        self.first = nn.Conv2d(from_width, hidden, 1)
        self.second = nn.Conv2d(hidden, hidden, kernel, padding="same")
        self.third = nn.Conv2d(hidden, hidden, kernel, padding="same")
        self.last = _scaled(nn.Conv2d(hidden, to_width, 1), scale)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, from_width, H, W) to (B, to_width, H, W)."""
        for convolution in (self.first, self.second, self.third, self.last):
            x = convolution(F.silu(x))
        return x


class BottomUpEncoder(nn.Module):
    """The encoder: residual blocks from fine to coarse, with means of neighbouring positions in between.

    Args:
        from_channels: Channels of the image's patches.
        stages: From fine to coarse.
        hidden: Channels inside the blocks.
    """

    def __init__(self, from_channels: int, stages: Sequence[LadderStage], hidden: int) -> None:
        super().__init__()
        scale = 1 / sqrt(sum(stage.encoder_blocks for stage in stages))
        self.stem = nn.Conv2d(from_channels, stages[0].width, 3, padding=1)
        self.coarsen = nn.ModuleList(
            nn.Sequential(nn.AvgPool2d(coarse.factor, ceil_mode=True), nn.Conv2d(fine.width, coarse.width, 1))
            for fine, coarse in pairwise(stages)
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                BottleneckBlock(stage.width, stage.width, hidden, stage.size, scale)
                for _ in range(stage.encoder_blocks)
            )
            for stage in stages
        )

    def forward(self, patches: Tensor) -> list[Tensor]:
        """Return the features after each stage, from fine to coarse, of patches (B, from_channels, H, W)."""
        x, features = self.stem(patches), []
        for i, blocks in enumerate(self.blocks):
            x = self.coarsen[i - 1](x) if i else x
            for block in blocks:  # type: ignore[attr-defined]
                x = x + block(x)
            features.append(x)
        return features


class TopDownBlock(nn.Module):
    """One level of latents: x <- x + h, x <- x + W z, x <- x + f(x), where (p(z), h) and q(z) are made from x.

    Args:
        stage: Where it is.
        hidden: Channels inside.
        latent_channels: Z.
        scale: A factor of the last weights at first, 1 / sqrt(number of blocks), with which the variance of x does
            not grow with depth (Child 2021, section 3.2).
    """

    def __init__(self, stage: LadderStage, hidden: int, latent_channels: int, scale: float) -> None:
        super().__init__()
        width, self.sizes = stage.width, [2 * latent_channels, stage.width]
        # as p starts as N(0, I), so does h as 0
        self.prior = BottleneckBlock(width, sum(self.sizes), hidden, stage.size, scale=0)
        self.posterior = BottleneckBlock(2 * width, 2 * latent_channels, hidden, stage.size)
        self.project = _scaled(nn.Conv2d(latent_channels, width, 1), scale)
        self.residual = BottleneckBlock(width, width, hidden, stage.size, scale)

    def forward(self, x: Tensor, features: Tensor | None, draw: Draw) -> tuple[Tensor, LatentLevel]:
        """Return x (B, width, H, W) with the level's latents in it, and these."""
        parameters, h = self.prior(x).split(self.sizes, dim=1)
        p = diagonal_normal(*parameters.chunk(2, dim=1))
        q = (
            None
            if features is None
            else diagonal_normal(*self.posterior(torch.cat([x, features], dim=1)).chunk(2, dim=1))
        )
        z = draw(p if q is None else q)
        x = x + h + self.project(z)
        return x + self.residual(x), LatentLevel(z, p, q)


class TopDownDecoder(nn.Module):
    """The decoder: from a learned map through blocks of latents from coarse to fine, each position copied in between.

    A learned map, and a vector of the class, is added at each resolution.

    Args:
        stages: From fine to coarse.
        hidden: Channels inside the blocks.
        latent_channels: Z.
        num_classes: How many classes there are.
    """

    def __init__(
        self, stages: Sequence[LadderStage], hidden: int, latent_channels: int, num_classes: int | None = None
    ) -> None:
        super().__init__()
        downward = stages[::-1]
        scale = 1 / sqrt(sum(stage.decoder_blocks for stage in stages))
        self.start = nn.ParameterList(torch.zeros(1, stage.width, *stage.size) for stage in downward)
        self.classes = nn.ModuleList(ClassEmbedding(num_classes, stage.width) for stage in downward)
        self.refine = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(coarse.width, fine.width, 1), nn.Upsample(scale_factor=coarse.factor), Crop(fine.size)
            )
            for coarse, fine in pairwise(downward)
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(TopDownBlock(stage, hidden, latent_channels, scale) for _ in range(stage.decoder_blocks))
            for stage in downward
        )

    def forward(
        self, n: int, draw: Draw, features: Sequence[Tensor] | None = None, y: Tensor | None = None
    ) -> tuple[Tensor, list[LatentLevel]]:
        """Return the finest x, (B, width, H, W), and the levels from coarse to fine, for ``n`` images.

        Args:
            n: B.
            draw: What to take of q, or without features of p.
            features: Those of :class:`BottomUpEncoder`.
            y: Labels (B,).
        """
        x, levels = self._start(0, n, y), []
        for i, blocks in enumerate(self.blocks):
            x = self.refine[i - 1](x) + self._start(i, n, y) if i else x
            for block in blocks:  # type: ignore[attr-defined]
                x, level = block(x, None if features is None else features[-1 - i], draw)
                levels.append(level)
        return x, levels

    def _start(self, i: int, n: int, y: Tensor | None) -> Tensor:
        """Return the learned map of the i-th resolution, with the classes' vectors, (n, width, H, W)."""
        start = self.classes[i](self.start[i].expand(n, -1, -1, -1), y)
        return start.contiguous(memory_format=torch.channels_last)


def _scaled(convolution: nn.Conv2d, scale: float) -> nn.Conv2d:
    """Scale the weights, and start the biases at 0."""
    with torch.no_grad():
        convolution.weight.mul_(scale)
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution
