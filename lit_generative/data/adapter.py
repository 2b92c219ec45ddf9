"""Any LightningDataModule as images to evaluate on: what it does not declare, its loaders tell."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sized
from itertools import chain, islice
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler

from lit_generative.contracts import Batch, DeclaresClasses, DeclaresShape, ImageData, NamesClasses, Split, as_batch
from lit_generative.data.splits import ON_VALIDATION
from lit_generative.description import describe
from lit_generative.processes import rank_and_world

__all__ = ["declared_shape", "image_data"]

_BATCH_SIZE = 128
_LOOKED_AT = 64  # images whose content counts in a fingerprint


def image_data(data: L.LightningDataModule) -> ImageData:
    """Return a data module as images to evaluate on, which it may be already.

    One of a user's own needs ``train_dataloader`` and ``val_dataloader``, whose batches are dicts with ``image`` and
    ``label``, pairs (image, label), or images alone. It may declare ``image_shape`` (otherwise the first image has it),
    ``num_classes`` (conditional models need it) and ``class_names``. Without a ``test_dataloader`` the validation
    images stand in, which is said, and stands with the numbers.

    Images are read in a fixed order: torch's shuffling is left out, another sampler is kept. Of several processes each
    reads all images and keeps every n-th.
    """
    return data if isinstance(data, ImageData) else _LoadedImages(data)


def declared_shape(data: L.LightningDataModule) -> tuple[int, int, int]:
    """Return the images' channels, height and width, for networks that are built before anything is loaded.

    Raises:
        ValueError: If the data module does not declare them.
    """
    if not isinstance(data, DeclaresShape):
        name = type(data).__name__
        raise ValueError(f"{name} has no image_shape: give it (channels, height, width), which networks depend on")
    return data.image_shape


class _LoadedImages:
    """The images that the loaders of a data module give, as :class:`~lit_generative.contracts.ImageData`."""

    def __init__(self, data: L.LightningDataModule) -> None:
        self.data = data
        running = None if data.trainer is None else data.trainer.state.fn
        self._stages = {running.value} if running else set()  # that are set up
        self._has_warned = False

    @property
    def name(self) -> str:
        return type(self.data).__name__

    @functools.cached_property
    def image_shape(self) -> tuple[int, int, int]:
        if isinstance(self.data, DeclaresShape):
            return self.data.image_shape
        channels, height, width = self._first("train", 1)["image"].shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int | None:
        return self.data.num_classes if isinstance(self.data, DeclaresClasses) else None

    @property
    def class_names(self) -> list[str] | None:
        if isinstance(self.data, NamesClasses):
            return self.data.class_names
        return None if self.num_classes is None else list(map(str, range(self.num_classes)))

    def num_images(self, split: Split) -> int | None:
        sampler = _sampler(self._in_order(split))
        return len(sampler) if isinstance(sampler, Sized) else None

    def loader(self, split: Split, *, batch_size: int | None = None, limit: int | None = None) -> Iterable[Batch]:
        if split != self._source(split) and not self._has_warned:
            self._has_warned = True
            rank_zero_warn(
                f"{self.name} has no test_dataloader: its validation images stand in, {ON_VALIDATION}; give it one"
            )
        return _Share(self._in_order(split), batch_size or _BATCH_SIZE, limit, *rank_and_world())

    def fingerprint(self, split: Split, limit: int | None = None) -> str:
        digest = hashlib.sha256(repr((self.protocol(split), limit)).encode())
        for name, values in self._first(split, _LOOKED_AT).items():
            digest.update(name.encode() + values.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def protocol(self, split: Split) -> dict[str, Any]:
        return {
            "dataset": self.name,
            "split": split,
            "source_split": self._source(split),
            **({} if split == self._source(split) else {"test_images": f"the validation images, {ON_VALIDATION}"}),
            "num_images": self.num_images(split),
            "image_shape": list(self.image_shape),
            "hparams": describe(dict(self.data.hparams)),
        }

    def _first(self, split: Split, n: int) -> Batch:
        """Return the first images of a split, the same in each process."""
        for batch in _Share(self._in_order(split), n, limit=n):
            return batch
        raise ValueError(f"{self.name}.{self._source(split)}_dataloader gives no images")

    def _source(self, split: Split) -> Split:
        return "val" if split == "test" and not is_overridden("test_dataloader", self.data) else split

    def _in_order(self, split: Split) -> Iterable[Any]:
        """Return a loader of a split, without torch's own shuffling, sharing and dropping of what fills no batch."""
        source = self._source(split)
        method = f"{source}_dataloader"
        if not is_overridden(method, self.data):
            raise ValueError(f"{self.name} has no {method}: give it one, for the images to evaluate on")
        self._set_up("test" if source == "test" else "fit")
        loader = getattr(self.data, method)()
        if not isinstance(_sampler(loader), RandomSampler | DistributedSampler):
            return loader
        workers = {"num_workers": loader.num_workers, "worker_init_fn": loader.worker_init_fn}
        return DataLoader(loader.dataset, loader.batch_size, collate_fn=loader.collate_fn, **workers)

    def _set_up(self, stage: str) -> None:
        """Do what the trainer has not done: within ``fit``, for instance, nothing is set up for the test images."""
        if stage in self._stages:
            return
        with isolate_rng():
            if self.data.trainer is None:
                self.data.prepare_data()
            self.data.setup(stage)
        self._stages.add(stage)


def _sampler(loader: Iterable[Any]) -> Any:
    """Return what gives the images their order one by one, None if nothing is known to."""
    return loader.sampler if isinstance(loader, DataLoader) and loader.batch_size is not None else None


@dataclasses.dataclass
class _Share:
    """Every ``world``-th of the first ``limit`` images that a loader gives, in batches of another size."""

    loader: Iterable[Any]
    batch_size: int
    limit: int | None
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[Batch]:
        held: Batch = {}
        seen = 0
        for batch in _always_alike(self.loader):
            left = None if self.limit is None else self.limit - seen
            share = slice((self.rank - seen) % self.world, left, self.world)
            size = len(batch["image"])
            new = {name: values[share] for name, values in batch.items() if values.ndim and len(values) == size}
            held = {name: torch.cat([held[name], new[name]]) for name in held} or new
            while len(held["image"]) >= self.batch_size:
                yield {name: values[: self.batch_size] for name, values in held.items()}
                held = {name: values[self.batch_size :] for name, values in held.items()}
            seen += len(batch["image"])
            if self.limit is not None and seen >= self.limit:
                break
        if held and len(held["image"]):
            yield held


def _always_alike(loader: Iterable[Any]) -> Iterator[Batch]:
    """Yield the batches of a loader; a sampler that draws an order, which it does for the first one, draws the same."""
    with isolate_rng():
        torch.manual_seed(0)
        batches = iter(loader)
        first = list(islice(batches, 1))
    yield from map(as_batch, chain(first, batches))
