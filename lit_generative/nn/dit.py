"""Diffusion transformer with adaLN-zero (Peebles & Xie 2023), for images of any size."""

from math import ceil

from torch import Tensor, nn
from torch.nn import functional as F

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
from lit_generative.nn.embeddings import TimeEmbedding, TimePosition, check_times, grid_sinusoids
from lit_generative.nn.layers import draw_glorot
from lit_generative.nn.sizes import ImageShape, check_sizes, fold, unfold

__all__ = ["DiT"]


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each x + alpha f(gamma norm(x) + beta) (Peebles & Xie 2023, section 3.2).

    The six vectors alpha, gamma and beta come from features c of time and class. alpha is 0 at first, so that the block
    starts as the identity.

    Args:
        dim: Features of a position, and of c.
        heads: Attention heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = SelfAttention(dim, heads)
        self.up = nn.Linear(dim, 4 * dim)
        self.down = nn.Linear(4 * dim, dim)
        self.modulation = nn.Linear(dim, 6 * dim)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Map positions (B, N, dim), with SiLU(c) (B, dim), to the same shape."""
        beta_1, scale_1, alpha_1, beta_2, scale_2, alpha_2 = self.modulation(c)[:, None].chunk(6, dim=2)
        x = x + alpha_1 * self.attention(_modulated(x, beta_1, scale_1))
        return x + alpha_2 * self.down(F.gelu(self.up(_modulated(x, beta_2, scale_2)), approximate="tanh"))


class DiT(Described, nn.Module):
    """A transformer over patches of the noisy image. Its output is 0 at first.

    The paper's sizes (table 1) are ``dim``, ``depth``, ``heads`` = 384, 12, 6 (S); 768, 12, 12 (B); 1024, 24, 16 (L)
    and 1152, 28, 16 (XL).

    Args:
        image_shape: (C, H, W) of the images; sizes that are no multiple of ``patch`` are padded.
        patch: Pixels of a patch, each way.
        dim: Features of a position, a multiple of 4.
        depth: Blocks.
        heads: Attention heads; a divisor of ``dim``.
        num_classes: How many classes there are. The label ``num_classes`` means that none is given.
        output_multiple: Channels of the output for one of the image: 2 for a learned variance (Nichol & Dhariwal 2021).
        position: What the network is told of the time. None: the number of the step, 1000 t - 1.
        adapters: Fits a trained network to other data by a few weights beside its own. None: all weights are trained.
        condition: What else it is told; ``num_classes`` is short for one of classes. None: nothing.

    Raises:
        ValueError: If ``dim`` is no multiple of 4 or of ``heads``, or ``patch``, ``depth`` or ``output_multiple`` is
            below 1.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        patch: int = 2,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        num_classes: int | None = None,
        output_multiple: int = 1,
        position: TimePosition | None = None,
        adapters: LowRankAdapters | None = None,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        check_sizes(image_shape, patch=patch, dim=dim, depth=depth, heads=heads)
        check_sizes(image_shape, output_multiple=output_multiple, num_classes=num_classes)
        if dim < 4 or dim % 4:
            raise ValueError(f"dim={dim}: a sine and a cosine for each of two axes need a multiple of 4")
        channels, height, width = image_shape
        self.size, self.patch = (height, width), patch
        self.grid = (ceil(height / patch), ceil(width / patch))
        self.condition = condition_of(num_classes, condition)
        self.num_classes = labels_of(self.condition)
        self.stem = nn.Linear((channels + channels_beside(self.condition, channels)) * patch**2, dim)
        self.time = TimeEmbedding(256, dim, position=position)
        self.classes = embedding_of(self.condition, dim)
        self.transformer = nn.ModuleList(TransformerBlock(dim, heads) for _ in range(depth))
        self.modulation = nn.Linear(dim, 2 * dim)
        self.head = nn.Linear(dim, channels * patch**2 * output_multiple)
        self.positions = nn.Buffer(grid_sinusoids(self.grid, dim), persistent=False)
        self._initialise()
        self.adapters = adapters
        if adapters is not None:
            adapters.adapt(self)

    def _initialise(self) -> None:
        """Start as the paper has it: Glorot & Bengio's uniform weights, embeddings of deviation 0.02, and zeros."""
        for module in self.modules():
            draw_glorot(module)
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for linear in (self.time.first, self.time.second):
            nn.init.normal_(linear.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, DiT | TransformerBlock):
                nn.init.zeros_(module.modulation.weight)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the prediction for noisy images.

        Args:
            x: Noisy images (B, C, H, W), of the size the network was made for.
            t: Times (B,) in [0, 1]; the i-th of DDPM's 1,000 steps is (i + 1) / 1000.
            y: What the condition says, (B, ...): classes (B,), int64, ``num_classes`` where none is given. Needed if
                there is a condition.

        Returns:
            (B, output_multiple * C, H, W), float32.
        """
        check_times(x, t)
        if x.shape[2:] != self.size:
            raise ValueError(f"x is of {tuple(x.shape[2:])} pixels, but image_shape says {self.size}; resize it")
        c = F.silu(self.classes(self.time(t), y))
        x = with_condition(self.condition, x, y)
        h = self.stem(fold(x, self.patch).flatten(2).transpose(1, 2)) + self.positions  # (B, N, dim)
        for block in self.transformer:
            h = block(h, c)
        beta, scale = self.modulation(c)[:, None].chunk(2, dim=2)
        patches = self.head(_modulated(h, beta, scale)).transpose(1, 2).unflatten(2, self.grid)
        return unfold(patches, self.patch, self.size).float()


def _modulated(x: Tensor, beta: Tensor, scale: Tensor) -> Tensor:
    """Return (1 + scale) norm(x) + beta, with layer normalisation of each position (B, N, dim)."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + beta
