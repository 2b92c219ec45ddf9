"""An opened set of images: its splits in a form that loaders read, and its identity for caches and reports."""

import dataclasses
import hashlib
import json
import math
from typing import Any, cast

from lit_generative.data.binarise import Binarisation
from lit_generative.data.decode import Decoder
from lit_generative.data.images import DecodedImages, EncodedImages
from lit_generative.data.opening import Parts
from lit_generative.data.sources import Source
from lit_generative.data.splits import Part
from lit_generative.data.streams import StreamedPart

__all__ = ["Catalog"]


@dataclasses.dataclass
class Catalog:
    """What a data module knows once the data are open.

    Args:
        source: Where the images come from.
        parts: Its training, validation and test images.
        decoder: Makes them pixels.
        subset: How many training images were kept, or None for all.
        in_memory: Whether all are decoded once into memory; ``auto``: if they fit into the budget.
        memory_budget: In GiB.
        skip_unreadable: Whether images that cannot be read are left out.
        binarise: Makes the images black and white, or None.
    """

    source: Source
    parts: Parts
    decoder: Decoder
    subset: int | None
    in_memory: str | bool
    memory_budget: float
    skip_unreadable: bool
    binarise: Binarisation | None = None
    _opened: dict[str, DecodedImages | EncodedImages] = dataclasses.field(default_factory=dict)

    def part(self, split: str) -> Part | StreamedPart:
        """The encoded images of a split.

        Raises:
            ValueError: If there is no such split.
        """
        if split not in self.parts.images:
            raise ValueError(f"split={split!r} is none of {', '.join(self.parts.images)}")
        return self.parts.images[split]

    def images(self, split: str) -> DecodedImages | EncodedImages:
        """The images of a split that is not a stream; decoded when first asked for if they are kept in memory."""
        if split not in self._opened:
            part = cast(Part, self.part(split))
            kind = DecodedImages if self._are_in_memory() else EncodedImages
            self._opened[split] = kind(part, self.decoder, self.skip_unreadable, self.binarise)
        return self._opened[split]

    def _are_in_memory(self) -> bool:
        if self.in_memory != "auto":
            return bool(self.in_memory)
        num_bytes = sum(map(len, self.parts.images.values())) * self.decoder.channels * math.prod(self.decoder.size)
        return num_bytes <= self.memory_budget * 2**30

    def num_images(self, split: str) -> int | None:
        """The number of images in a split, or None for a stream that does not tell."""
        try:
            return len(self._opened.get(split, self.part(split)))
        except TypeError:
            return None

    def num_skipped(self, split: str) -> int:
        """How many files of the source and images of the split were left out so far."""
        images = self._opened.get(split, self.part(split))
        return self.source.skipped + int(getattr(images, "num_skipped", 0))

    def fingerprint(self, split: str, limit: int | None) -> str:
        """A hex digest of the first ``limit`` images of a split: of the data and all that is done to them."""
        num_images = self.num_images(split)
        identity = {
            "data": self.source.identity,
            "share": dataclasses.astuple(self.parts.shares[split]),
            "columns": self.parts.columns,
            "subset": self.subset if split == "train" else None,
            "decoder": dataclasses.astuple(self.decoder),
            "skip_unreadable": self.skip_unreadable,
            "limit": limit if limit is None or num_images is None or limit < num_images else None,
            "version": 1,  # of the rules by which splits are cut and images are decoded
            **self._binarised,
        }
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    @property
    def _binarised(self) -> dict[str, str]:
        return {} if self.binarise is None else {"binarised": self.binarise.name}

    def protocol(self, split: str) -> dict[str, Any]:
        """What should accompany a number measured on a split, as plain data."""
        num_images, num_skipped = self.num_images(split), self.num_skipped(split)
        return {
            "dataset": self.source.name,
            "split": split,
            "source_split": str(self.parts.shares[split]),
            "num_images": num_images,
            "image_size": list(self.decoder.size),
            "channels": self.decoder.channels,
            "resizing": self.decoder.resizing,
            **self._binarised,
            **({"subset": self.subset} if split == "train" and self.subset else {}),
            **({"skipped": num_skipped} if num_skipped else {}),
        }
