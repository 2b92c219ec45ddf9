"""Images read while training, from the hub or from files too large to be prepared first."""

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from lit_generative.contracts import Batch
from lit_generative.data.binarise import Binarisation
from lit_generative.data.columns import Classes
from lit_generative.data.decode import Decoder, attempt
from lit_generative.data.images import keep_readable, to_batch
from lit_generative.data.loaders import Refusal, refuse
from lit_generative.data.splits import EMPTY, Share, place_by_content
from lit_generative.processes import rank_and_world

if TYPE_CHECKING:
    import datasets

__all__ = ["SHUFFLE_BUFFER", "StreamedImages", "StreamedPart"]

SHUFFLE_BUFFER = 4096
"""Encoded images held for shuffling: each is drawn from this many, besides the order of the files being shuffled."""


@dataclass(frozen=True)
class StreamedPart:
    """The images of one split of a stream.

    Args:
        table: The stream; its images are not decoded.
        column: The column of images.
        label_column: The column of labels, or None.
        classes: What the labels mean, or None.
        share: Which of the stream's images belong to the split, by the checksum of their content.
        num_skipped: How many images could not be read so far, in all epochs; worker processes write it.
    """

    table: "datasets.IterableDataset"
    column: str
    label_column: str | None
    classes: Classes | None
    share: Share
    num_skipped: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64).share_memory_())

    def __len__(self) -> int:
        """The number of images as the source states it; a TypeError says that it does not, or that they are a share."""
        stated = (self.table.info.splits or {}).get(self.share.origin)
        if not self.share.is_whole or not stated or not stated.num_examples:
            raise TypeError("the number of images in this stream is not known")
        return stated.num_examples

    def encoded(self, limit: int | None = None) -> Iterator[tuple[dict[str, Any], str]]:
        """The first ``limit`` encoded images, each with a name for messages."""
        for i, row in enumerate(islice(self.rows(self.table), limit)):
            yield row[self.column], f"row {i:,} of {self.share.origin}"

    def rows(self, table: "datasets.IterableDataset") -> Iterator[dict[str, Any]]:
        """Those rows of ``table``, this stream in any order, that are in the share."""
        for columns in table.iter(64):
            for values in zip(*columns.values(), strict=True):
                row = dict(zip(columns, values, strict=True))
                row[self.column] = row[self.column] or EMPTY
                if self.share.is_whole or self.share.first <= place_by_content(row[self.column]) < self.share.last:
                    yield row


class StreamedImages(IterableDataset):
    """Batches of a stream; batch for batch each process decodes its own part of what all of them read.

    So no image is seen twice or missed and all processes have equally many batches, whatever files the stream is made
    of. A resumed run reads again, without decoding, what it had seen of the epoch.

    Args:
        part: The images.
        decoder: Makes them pixels.
        batch_size: Images a batch and process.
        skip_unreadable: Whether images that cannot be read are left out; they are an error otherwise.
        shuffle_seed: Decides the order, another one in each epoch, and drops the last incomplete batch. None: in order.
        mirror: Whether to mirror each image with probability 1/2.
        limit: The number of images after which to stop, or None.
        num_threads: Images decoded at a time.
        binarise: Makes them black and white, or None.
    """

    max_workers = 1  # it reads ahead and decodes with threads; several would each have to read the whole stream

    def __init__(
        self,
        part: StreamedPart,
        decoder: Decoder,
        batch_size: int,
        *,
        skip_unreadable: bool = False,
        shuffle_seed: int | None = None,
        mirror: bool = False,
        limit: int | None = None,
        num_threads: int = 1,
        binarise: Binarisation | None = None,
    ) -> None:
        self.part, self.decoder, self.batch_size = part, decoder, batch_size
        self.skip_unreadable, self.shuffle_seed, self.mirror = skip_unreadable, shuffle_seed, mirror
        self.limit, self.num_threads, self.binarise = limit, num_threads, binarise
        self.rank, self.world = rank_and_world()  # here, because a worker process does not know
        self.epoch, self.first_batch = -1, 0
        self._num_batches, self._is_exhausted = 0, False
        self._resumed: tuple[int, int] | None = None

    def begin(self) -> None:
        """Begin the next epoch, or the remainder of a resumed one."""
        self.epoch, self.first_batch = self._resumed or (self.epoch + 1, 0)
        self._resumed = None
        self._num_batches, self._is_exhausted = self.first_batch, False

    def advance(self) -> None:
        """Count a batch that was taken."""
        self._num_batches += 1

    def finish(self) -> None:
        """Take note that the epoch has no more batches."""
        self._is_exhausted = True

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches were used."""
        if self._is_exhausted:
            return {"epoch": self.epoch + 1, "batches": 0}
        # Of what has no length, Lightning takes one batch ahead of the one it trains on
        return {"epoch": max(self.epoch, 0), "batches": max(self._num_batches - 1, 0)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next epoch be the one that ``state`` says, without the batches that were used."""
        self._resumed = (state["epoch"], state["batches"])

    def __iter__(self) -> Iterator[Batch | Refusal]:
        """Yield this process's part of each batch; in a worker process, why there is none."""
        try:
            yield from self._batches()
        except ValueError as error:
            yield refuse(error)

    def _batches(self) -> Iterator[Batch]:
        with ThreadPoolExecutor(self.num_threads) as pool:
            for number, rows in enumerate(self._global_batches()):
                if number >= self.first_batch:
                    key = None if self.shuffle_seed is None else (self.shuffle_seed, self.epoch, number, self.rank)
                    yield self._decode(rows, self._mirrored(number, len(rows)), key, pool)

    def _global_batches(self) -> Iterator[list[dict[str, Any]]]:
        """Cut the stream as :func:`~.samplers.global_batches` cuts what has a length."""
        table = self.part.table
        is_training = self.shuffle_seed is not None
        if is_training:
            table = table.shuffle(seed=self.shuffle_seed, buffer_size=SHUFFLE_BUFFER)
            table.set_epoch(self.epoch)
        rows = islice(self.part.rows(table), self.limit)
        size = self.batch_size * self.world
        held = list(islice(rows, size))
        while following := list(islice(rows, size)):
            if len(following) < (size if is_training else self.world):
                held += [] if is_training else following
                break
            yield held
            held = following
        if held:
            yield held

    def _mirrored(self, number: int, size: int) -> np.ndarray | None:
        if not self.mirror:
            return None
        return np.random.default_rng((self.shuffle_seed or 0, self.epoch, number)).random(size) < 0.5

    def _decode(
        self,
        rows: list[dict[str, Any]],
        mirrored: np.ndarray | None,
        key: tuple[int, ...] | None,
        pool: ThreadPoolExecutor,
    ) -> Batch:
        rows = rows[self.rank :: self.world]
        decode = functools.partial(attempt, self.decoder, name=f"an image of {self.part.share.origin}")
        decoded = list(pool.map(decode, [row[self.part.column] for row in rows]))
        pixels, is_good = keep_readable(decoded, self.skip_unreadable)
        self.part.num_skipped.add_(int((~is_good).sum()))
        labels = None
        if self.part.classes and self.part.label_column:
            values = np.array([row[self.part.label_column] for row in rows])[is_good]
            labels = self.part.classes.encode(values, self.part.share.origin)
        if self.binarise is not None:
            pixels = self.binarise(pixels, key)
        if mirrored is not None:
            mirrored = mirrored[self.rank :: self.world][is_good]
        return to_batch(pixels, labels, mirrored)
