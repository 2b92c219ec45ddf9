"""Self-attention over positions (Vaswani et al. 2017)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SelfAttention", "attend"]


def attend(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, eq. 1) of queries, keys and values (B, heads, N, d).

    On the CPU it is written out, with the softmax in float32: there the fused kernel's backward pass in bf16 takes ten
    times as long when d is small. Elsewhere it is the fused kernel, which does not keep the N x N weights. If
    ``is_causal``, no position sees those after it.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, heads, N, N)
    if is_causal:
        scores = scores + torch.full(scores.shape[-2:], float("-inf"), device=q.device).triu(1)
    at_least_float32 = torch.promote_types(scores.dtype, torch.float32)
    return torch.softmax(scores, dim=-1, dtype=at_least_float32).to(v.dtype) @ v


class SelfAttention(nn.Module):
    """Multi-head self-attention, without a residual connection.

    Args:
        dim: Features of a position.
        heads: How many heads share them.

    Raises:
        ValueError: If ``heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads={heads}: {dim} features are not shared evenly; take a divisor of {dim}")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.initialise()

    def initialise(self) -> None:
        """Draw the weights of queries, keys and values as three layers (Glorot & Bengio 2010, eq. 16); biases are 0."""
        for weight in (*self.qkv.weight.chunk(3), self.out.weight):
            nn.init.xavier_uniform_(weight)
        for bias in (self.qkv.bias, self.out.bias):
            nn.init.zeros_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map positions (B, N, dim) to the same shape."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(attend(q, k, v).transpose(1, 2).flatten(2))
