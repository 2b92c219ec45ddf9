"""The loaders of both data modules: whole batches, and a place in the training that a resumed run finds again."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning as L
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lit_generative.contracts import Split
from lit_generative.description import Described

__all__ = ["ImageLoader", "Refusal", "ResumableLoader", "SplitLoaders", "refuse"]


class ImageLoader(DataLoader):
    """A DataLoader whose worker processes hand over what they refuse, so that it is raised as one sentence.

    Torch would put the worker's traceback into it.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches."""
        for batch in super().__iter__():
            if isinstance(batch, Refusal):
                raise batch.error
            yield batch


@dataclass(frozen=True)
class Refusal:
    """In place of a batch, why there is none."""

    error: ValueError


def refuse(error: ValueError) -> Refusal:
    """Raise ``error``, but in a worker process return it for :class:`ImageLoader` to raise."""
    if get_worker_info() is None:
        raise error
    return Refusal(error)


class ResumableLoader(ImageLoader):
    """A DataLoader of whole batches whose position Lightning saves in checkpoints.

    What decides the order, a :class:`~.samplers.ShuffledBatches` or a :class:`~.streams.StreamedImages`, keeps the
    position; here it is told what was used. Nothing happens before the first batch is asked for, because Lightning
    creates the iterator before it tells the epoch.
    """

    @property
    def _order(self) -> Any:
        return self.dataset if isinstance(self.dataset, IterableDataset) else self.sampler

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches of an epoch, or those that remain of a resumed one."""
        order = self._order
        order.begin()
        for batch in super().__iter__() if self.num_workers else self._cut():
            order.advance()
            yield batch
        order.finish()

    def _cut(self) -> Iterator[Any]:
        """Do in this process what DataLoader does; its bookkeeping takes longer than cutting a small batch."""
        is_stream = isinstance(self.dataset, IterableDataset)
        return iter(self.dataset) if is_stream else map(self.dataset.__getitem__, self.sampler)

    def state_dict(self) -> dict[str, int]:
        """Return the epoch's number and how many of its batches were used."""
        return self._order.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration begin where ``state`` says."""
        self._order.load_state_dict(state)


class SplitLoaders(Described, L.LightningDataModule, ABC):
    """A data module whose loaders follow from two: that of the training, and :meth:`loader` for all else."""

    @abstractmethod
    def loader(self, split: Split, *, batch_size: int | None = None, limit: int | None = None) -> DataLoader:
        """Images for evaluation: in a fixed order, and of several processes each gets its own share."""

    @abstractmethod
    def training_loader(self) -> DataLoader:
        """Shuffled training images; the loader can resume in the middle of an epoch."""

    def train_dataloader(self) -> DataLoader:
        """Shuffled training images; in order where the trainer is to overfit a few batches."""
        is_overfitting = self.trainer is not None and self.trainer.overfit_batches  # type: ignore[attr-defined]
        return self.loader("train") if is_overfitting else self.training_loader()

    def val_dataloader(self) -> DataLoader:
        """Validation images in order."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        """Test images in order."""
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Test images in order; ``predict`` draws a sample for each."""
        return self.loader("test")
