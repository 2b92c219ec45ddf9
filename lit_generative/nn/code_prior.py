"""A causal transformer over grids of codes: the autoregressive prior of a VQ-VAE."""

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described
from lit_generative.nn.attention import attend
from lit_generative.nn.embeddings import ClassEmbedding, grid_sinusoids
from lit_generative.nn.layers import draw_glorot
from lit_generative.numerics import at_least_single

__all__ = ["CodeTransformer"]


class AttentionMemory:
    """The keys and values of the positions so far, (B, heads, N, d) each, of one layer.

    Args:
        num_positions: How many there will be.
    """

    def __init__(self, num_positions: int) -> None:
        self.num_positions, self.length = num_positions, 0
        self.keys_and_values = torch.empty(0)

    def extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of the next position, (B, heads, 1, d), and return all."""
        if not self.length:
            batch, heads, _, d = k.shape
            self.keys_and_values = k.new_empty(2, batch, heads, self.num_positions, d)
        self.keys_and_values[:, :, :, self.length] = torch.stack([k, v])[:, :, :, 0]
        self.length += 1
        keys, values = self.keys_and_values[:, :, :, : self.length]
        return keys, values


class CausalBlock(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)); a position sees those before it and itself.

    Args:
        dim: Features of a position.
        heads: Attention heads.
        dropout: The share of what each of the two adds that is set to 0 in training.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: AttentionMemory | None = None) -> Tensor:
        """Map positions (B, N, dim) to the same shape; with a memory, the next one position, (B, 1, dim)."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        seen = attend(q, k, v, is_causal=True) if memory is None else attend(q, *memory.extended(k, v))
        x = x + self.dropout(self.out(seen.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh")))


class CodeTransformer(Described, nn.Module):
    """p(c) = prod_i p(c_i | c_1, ..., c_{i-1}) over the codes of a grid, row by row (a decoder of Vaswani et al. 2017).

    It takes grids of any size: a position is encoded by sinusoids of its row and column.

    Args:
        num_codes: K, how many codes there are.
        dim: Features of a position, a multiple of 4.
        depth: Blocks.
        heads: Attention heads; a divisor of ``dim``.
        dropout: The share of features that is dropped in training; small sets of images need some.
        num_classes: For p(c|y): how many classes there are.

    Raises:
        ValueError: If ``dim`` is no multiple of 4 or of ``heads``, a count is below 1, or ``dropout`` is not in [0, 1).
    """

    def __init__(
        self,
        num_codes: int = 256,
        dim: int = 128,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        for name, count in {"num_codes": num_codes, "dim": dim, "depth": depth, "heads": heads}.items():
            check_count(name, count)
        check_count("num_classes", num_classes)
        if dim < 4 or dim % 4 or dim % heads:
            raise ValueError(f"dim={dim}: take a multiple of 4 and of heads={heads}, for instance {32 * heads}")
        check_range("dropout", dropout, at_least=0, below=1)
        self.num_codes, self.num_classes = num_codes, num_classes
        self.vectors = nn.Embedding(num_codes, dim)
        self.start = nn.Parameter(torch.zeros(dim))
        self.position = nn.Linear(dim, dim)
        self.classes = ClassEmbedding(num_classes, dim)
        self.transformer = nn.ModuleList(CausalBlock(dim, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_codes)
        self._initialise()

    def _initialise(self) -> None:
        """Draw weights as the diffusion transformer does, and start with equal probabilities of all codes."""
        for module in self.modules():
            draw_glorot(module)
        nn.init.normal_(self.vectors.weight, std=0.02)
        nn.init.zeros_(self.head.weight)

    def forward(self, codes: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the logits of each code given those before it.

        Args:
            codes: (B, h, w), int64.
            y: Classes (B,); needed if ``num_classes`` is set.

        Returns:
            (B, h, w, num_codes), float32.
        """
        before = self.vectors(codes.flatten(1)[:, :-1])
        x = torch.cat([self.start.expand(len(codes), 1, -1), before], dim=1)
        x = x + self._places(codes.shape[1:], y, len(codes))
        for block in self.transformer:
            x = block(x)
        return at_least_single(self.head(self.norm(x))).unflatten(1, codes.shape[1:])

    @torch.no_grad()
    def sample(self, n: int, grid: tuple[int, int], y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """Draw codes (n, h, w), one after the other; what was computed for those before is kept.

        Args:
            n: How many grids.
            grid: (h, w).
            y: Classes (n,); needed if ``num_classes`` is set.
            temperature: What logits are divided by; below 1, likely codes become likelier.
        """
        places = self._places(grid, y, n)
        memories = [AttentionMemory(prod(grid)) for _ in self.transformer]
        codes, last = [], self.start.expand(n, -1)
        for i in range(prod(grid)):
            x = (last + places[:, i])[:, None]
            for block, memory in zip(self.transformer, memories, strict=True):
                x = block(x, memory)
            logits = at_least_single(self.head(self.norm(x)))[:, 0] / temperature  # (n, num_codes)
            codes.append(torch.multinomial(logits.softmax(1), 1)[:, 0])
            last = self.vectors(codes[-1])
        return torch.stack(codes, dim=1).view(n, *grid)

    def _places(self, grid: tuple[int, ...], y: Tensor | None, n: int) -> Tensor:
        """Return features of row and column, and of the classes, (n, N, dim)."""
        waves = grid_sinusoids(grid, len(self.start), self.start.device)
        places = self.position(waves.to(self.start.dtype))  # (N, dim)
        return self.classes(places.T.expand(n, -1, -1), y).mT
