"""The processes that work together: which this one is, and what they tell each other. Without a group it is alone."""

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["broadcast", "gather", "rank_and_world", "world_size"]

T = TypeVar("T")


def rank_and_world() -> tuple[int, int]:
    """Return the number of this process and the number of processes, 0 and 1 for one alone."""
    is_group = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if is_group else (0, 1)


def world_size() -> int:
    """Return the number of processes."""
    return rank_and_world()[1]


def broadcast(value: T) -> T:
    """Return what ``value``, anything that can be pickled, is on rank 0."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def gather(rows: Tensor) -> Tensor:
    """Return the rows of all processes, in order of rank; their numbers may differ."""
    world = world_size()
    if world == 1:
        return rows
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world)]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    padded = rows.new_zeros(int(max(counts)), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])
