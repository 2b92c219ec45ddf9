"""Which images make which batch, on which process: one array of indices a batch.

Batches are cut from global batches of ``batch_size`` times the number of processes; process ``r`` of ``w`` gets every
``w``-th image of one, from its ``r``-th on. So the processes' k-th batches together are the k-th batch that one process
with a ``w`` times larger batch would see.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import DistributedSampler, SequentialSampler

from lit_generative.processes import rank_and_world

__all__ = ["Picks", "SequentialBatches", "ShuffledBatches", "global_batches"]


@dataclass(frozen=True)
class Picks:
    """The images of one batch.

    Args:
        index: Which, (B,), int64.
        mirrored: Which of them are, (B,), bool; None: none is.
        key: Seeds what else is drawn for the batch in training; None: the images are for evaluation.
    """

    index: np.ndarray
    mirrored: np.ndarray | None = None
    key: tuple[int, ...] | None = None


def global_batches(n: int, batch_size: int, world: int, drop_last: bool) -> list[slice]:
    """Cut ``n`` images into global batches, of ``batch_size`` images for each of ``world`` processes.

    With ``drop_last`` what does not fill a global batch is left out, unless it is all there is. Without it, a last
    batch that has not an image for each process joins the one before. So all processes have equally many batches (after
    unequal loops a collective operation would wait for ever), and none is empty if ``n >= world``.
    """
    starts = list(range(0, n, batch_size * world))
    remainder = n % (batch_size * world)
    if len(starts) > 1 and remainder and (drop_last or remainder < world):
        starts.pop()
        n = n - remainder if drop_last else n
    return [slice(*ends) for ends in zip(starts, [*starts[1:], n], strict=True)]


class _Batches(DistributedSampler[Any]):
    """The base of the samplers; as a DistributedSampler Lightning leaves it in place and tells it the epoch."""

    drops_last: bool

    def __init__(self, num_images: int, batch_size: int) -> None:
        rank, world = rank_and_world()
        super().__init__(range(num_images), world, rank)  # type: ignore[arg-type]
        self.batches = global_batches(num_images, batch_size, world, self.drops_last)
        self.num_images = num_images

    def __len__(self) -> int:
        return len(self.batches)


class SequentialBatches(_Batches, SequentialSampler):
    """Each image once, in order. (Lightning's ``overfit_batches`` replaces samplers unless they are sequential.)

    Args:
        index: Which images, (N,), int64.
        batch_size: Images a batch and process.
    """

    drops_last = False

    def __init__(self, index: np.ndarray, batch_size: int) -> None:
        super().__init__(len(index), batch_size)
        self.index = index

    def __iter__(self) -> Iterator[Picks]:  # type: ignore[override]
        """Yield this process's part of each batch."""
        for batch in self.batches:
            yield Picks(self.index[batch.start + self.rank : batch.stop : self.num_replicas])


class ShuffledBatches(_Batches):
    """A new order in each epoch, which seed and epoch decide; full batches only, if there is one.

    The k-th batch of a run is a function of the seed and of k. An iteration takes as many batches as an epoch has from
    where the last one stopped, so a run that is interrupted, anywhere, and resumed sees the batches that it would have.

    Args:
        num_images: How many images there are.
        batch_size: Images a batch and process.
        seed: Decides the orders.
        mirror: Whether to mirror each image with probability 1/2, drawn anew in each epoch.
    """

    drops_last = True

    def __init__(self, num_images: int, batch_size: int, *, seed: int = 0, mirror: bool = False) -> None:
        super().__init__(num_images, batch_size)
        self.seed = seed
        self.mirror = mirror
        self._next: int | None = None  # the number of the next batch, counted from the beginning of the run

    def __iter__(self) -> Iterator[Picks]:
        """Yield this process's part of each of an epoch's number of batches."""
        start = self.epoch * len(self) if self._next is None else self._next
        drawn_epoch = None
        for number in range(start, start + len(self)):
            epoch, i = divmod(number, len(self))
            if epoch != drawn_epoch:
                order, mirrored = self._draw(epoch)
                drawn_epoch = epoch
            share = slice(self.batches[i].start + self.rank, self.batches[i].stop, self.num_replicas)
            yield Picks(order[share], mirrored[share] if self.mirror else None, (self.seed, number, self.rank))

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed, epoch))
        return rng.permutation(self.num_images), rng.random(self.num_images) < 0.5

    def begin(self) -> None:
        """Begin an iteration: where the last one stopped, the first one at the epoch that Lightning tells."""
        if self._next is None:
            self._next = self.epoch * len(self)

    def advance(self) -> None:
        """Count a batch that was used."""
        self._next = (self._next or 0) + 1

    def finish(self) -> None:
        """End an iteration; the count knows where."""

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches were used."""
        epoch, batches = divmod(self._next or 0, len(self))
        return {"epoch": epoch, "batches": batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration begin where ``state`` says."""
        self._next = state["epoch"] * len(self) + state["batches"]
