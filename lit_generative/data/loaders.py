"""The training loader: a DataLoader that a resumed run finds where the interrupted one left it."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

__all__ = ["ResumableLoader"]


class ResumableLoader(DataLoader):
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
