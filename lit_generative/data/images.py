"""Images as torch datasets that give whole batches: decoded in memory beforehand, or when they are asked for."""

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import Dataset
from tqdm import tqdm

from lit_generative.contracts import Batch
from lit_generative.data.binarise import Binarisation
from lit_generative.data.decode import Decoder, attempt
from lit_generative.data.loaders import Refusal, refuse
from lit_generative.data.reading import ImageReadError
from lit_generative.data.samplers import Picks
from lit_generative.data.splits import Part
from lit_generative.processes import rank_and_world

__all__ = ["DecodedImages", "EncodedImages", "keep_readable", "to_batch"]

_CHUNK = 512  # images decoded between two moves of the progress bar


def keep_readable(decoded: Sequence[np.ndarray | ImageReadError], skip: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels (B', C, H, W) of the images that could be read, and which of all (B,) these are.

    Raises:
        ImageReadError: If one could not and is not to be skipped, or if none could.
    """
    is_good = np.array([isinstance(image, np.ndarray) for image in decoded])
    if not is_good.all() and not (skip and is_good.any()):
        error = next(image for image in decoded if isinstance(image, ImageReadError))
        raise ImageReadError(f"{error}, but of this batch of {len(decoded)} none is left") if skip else error
    return np.stack([image for image in decoded if isinstance(image, np.ndarray)]), is_good


def to_batch(
    pixels: np.ndarray,
    labels: np.ndarray | None,
    mirrored: np.ndarray | None = None,
    conditions: dict[str, np.ndarray] | None = None,
) -> Batch:
    """Make a batch of uint8 ``pixels`` (B, C, H, W).

    It is NumPy that computes, in this thread: for so little work torch's threads wait longer than they compute, a
    thousand times longer where other programs use the cores.

    Returns:
        ``image`` (B, C, H, W) in [-1, 1], flipped where ``mirrored`` (B,) says so, and, if there are ``labels`` (B,),
        ``label``; ``conditions`` (B, ...) by name.
    """
    if mirrored is not None:
        pixels = np.where(mirrored[:, None, None, None], pixels[..., ::-1], pixels)
    values = np.divide(pixels, 127.5, dtype=np.float32)
    values -= 1
    batch = {"image": torch.from_numpy(values)}
    batch |= {name: torch.from_numpy(values) for name, values in (conditions or {}).items()}
    return batch if labels is None else batch | {"label": torch.from_numpy(labels)}


class DecodedImages(Dataset):
    """All images of a part as one uint8 array (N, C, H, W), from which batches are cut.

    Args:
        part: The encoded images; they are decoded here, with a progress bar if that takes long.
        decoder: Makes them pixels.
        skip_unreadable: Whether images that cannot be read are left out; they are an error otherwise.
        binarise: Makes them black and white, or None.
    """

    max_workers = 0  # batches are cut faster than a worker process could send them

    def __init__(
        self, part: Part, decoder: Decoder, skip_unreadable: bool, binarise: Binarisation | None = None
    ) -> None:
        self.pixels = np.empty((len(part), decoder.channels, *decoder.size), np.uint8)
        self.labels, self.conditions = part.labels, part.conditions
        errors = {}
        for i, decoded in enumerate(_decode(part, decoder)):
            if isinstance(decoded, np.ndarray):
                self.pixels[i] = decoded
            elif skip_unreadable:
                errors[i] = decoded
            else:
                raise decoded
        self.num_skipped = len(errors)
        if errors:
            self._leave_out(errors, part.origin)
        self.binarise = None
        if binarise is not None:
            self.pixels, self.binarise = binarise.settle(self.pixels)

    def _leave_out(self, errors: dict[int, ImageReadError], origin: str) -> None:
        which = f"{len(errors):,} of {len(self.pixels):,} images of {origin}"
        first = next(iter(errors.values()))
        if len(errors) == len(self.pixels):
            raise first
        rank_zero_warn(f"left out {which} that cannot be read; the first: {first}")
        is_good = np.ones(len(self.pixels), bool)
        is_good[list(errors)] = False
        self.pixels = self.pixels[is_good]
        self.labels = None if self.labels is None else self.labels[is_good]
        self.conditions = {name: values[is_good] for name, values in self.conditions.items()}

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, picks: Picks) -> Batch:
        """Return the batch of the images in ``picks``."""
        labels = None if self.labels is None else self.labels[picks.index]
        pixels = self.pixels.take(picks.index, axis=0)
        if self.binarise is not None:
            pixels = self.binarise(pixels, picks.key)
        conditions = {name: values[picks.index] for name, values in self.conditions.items()}
        return to_batch(pixels, labels, picks.mirrored, conditions)


def _decode(part: Part, decoder: Decoder) -> Iterator[np.ndarray | ImageReadError]:
    """Decode a part in order, in threads and with a progress bar; see :func:`~.decode.attempt`."""
    bar = tqdm(total=len(part), desc=f"decoding {part.origin}", unit="img", delay=1, disable=rank_and_world()[0] > 0)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool, bar:
        for index in np.array_split(np.arange(len(part)), -(-len(part) // _CHUNK)):
            yield from pool.map(functools.partial(attempt, decoder), *zip(*part.encoded(index), strict=True))
            bar.update(len(index))


class EncodedImages(Dataset):
    """Images that are decoded each time they are asked for, in DataLoader workers.

    Args:
        part: The encoded images.
        decoder: Makes them pixels.
        skip_unreadable: Whether a batch goes on without the images that cannot be read; they are an error otherwise.
        binarise: Makes them black and white, or None.
    """

    max_workers = 1024  # as many as are wanted

    def __init__(
        self, part: Part, decoder: Decoder, skip_unreadable: bool, binarise: Binarisation | None = None
    ) -> None:
        self.part = part
        self.binarise = binarise
        self.labels = part.labels
        self.decoder = decoder
        self.skip_unreadable = skip_unreadable
        self._is_bad = torch.zeros(len(part), dtype=torch.bool).share_memory_()  # workers write it

    @property
    def num_skipped(self) -> int:
        """How many of the images seen so far could not be read."""
        return int(self._is_bad.sum())

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, picks: Picks) -> Batch | Refusal:
        """Return the batch of the images in ``picks``; in a worker process, why there is none."""
        try:
            return self._batch(picks)
        except ValueError as error:
            return refuse(error)

    def _batch(self, picks: Picks) -> Batch:
        index = picks.index
        decoded = self._decode(index)
        while self.skip_unreadable and picks.key is not None and not _any_readable(decoded) and not self._is_bad.all():
            index = (index + 1) % len(self)  # others take the place of a training batch of which nothing is left
            decoded = self._decode(index)
        pixels, is_good = keep_readable(decoded, self.skip_unreadable)
        if self.binarise is not None:
            pixels = self.binarise(pixels, picks.key)
        labels = None if self.labels is None else self.labels[index[is_good]]
        conditions = {name: values[index[is_good]] for name, values in self.part.conditions.items()}
        return to_batch(pixels, labels, None if picks.mirrored is None else picks.mirrored[is_good], conditions)

    def _decode(self, index: np.ndarray) -> list[np.ndarray | ImageReadError]:
        decoded = [attempt(self.decoder, row, name) for row, name in self.part.encoded(index)]
        is_bad = np.array([isinstance(image, ImageReadError) for image in decoded])
        self._is_bad[torch.from_numpy(index[is_bad])] = True
        return decoded


def _any_readable(decoded: Sequence[np.ndarray | ImageReadError]) -> bool:
    return any(isinstance(image, np.ndarray) for image in decoded)
