"""The one data module: images from anywhere, as batches that every model, metric and callback understands."""

import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from lit_generative.checks import check_count, check_range
from lit_generative.contracts import Split
from lit_generative.data.about import found, left_out, made, mirroring
from lit_generative.data.arguments import check_choice, check_text, height_and_width
from lit_generative.data.binarise import Binarisation
from lit_generative.data.decode import Decoder, check_background
from lit_generative.data.images import DecodedImages, EncodedImages
from lit_generative.data.loaders import ImageLoader, ResumableLoader, SplitLoaders
from lit_generative.data.opening import Parts, choose_decoder, look, open_parts
from lit_generative.data.samplers import SequentialBatches, ShuffledBatches
from lit_generative.data.sources import Source, open_source
from lit_generative.data.splits import ON_VALIDATION, Part, spread
from lit_generative.data.streams import StreamedImages, StreamedPart
from lit_generative.data.surveys import Survey

__all__ = ["ImageDataModule"]


class ImageDataModule(SplitLoaders):
    """Images from an embedded set, the Hugging Face hub, a folder or files.

    A batch is a dict with ``image`` (B, C, H, W), float32 in [-1, 1], and, if the set is labelled, ``label`` (B,),
    int64. Nothing is opened before it is needed; wrong arguments are errors at once.

    Args:
        dataset: The name of an embedded set (``fashion-mnist``); the hub id ``owner/name``; a folder of images, with
            a subfolder for each class if there are labels; a Parquet, Arrow, zip or WebDataset (tar) file or a folder
            of such files; a folder of IDX files.
        image_size: Height and width in pixels, one number for both or two, such as ``[96, 64]``. Images are resized
            until they fill it (bicubic, antialiased) and the centre is cut out. None keeps the images as they are, if
            all have the same size.
        batch_size: Images a training or evaluation batch and process.
        config_name: The configuration of a hub data set that has several.
        revision: The branch, tag or commit of a hub data set.
        train_split: The source's name of the training split; None finds it.
        val_split: The same for validation. Where there is none, a fixed share of the training split is set aside.
        test_split: The same for test. Where there is none, it is the source's validation split, else a fixed share.
        val_fraction: The size of such a share, relative to the training split: above 0, below 0.5.
        subset: Use only so many training images, equally many a class as far as they go, always the same ones.
        image_column: The column with the images; ``auto`` finds it by its type.
        label_column: The column with the labels; ``auto`` finds it by its type; None leaves labels out.
        channels: 1 (grayscale), 3 (RGB), or ``auto``: 3 if any image is in colour.
        background: The colour behind transparent pixels: a name or #rrggbb.
        random_flip: Whether training images are mirrored left to right with probability 1/2.
        in_memory: Whether to decode all images once into memory; ``auto``: if they need no more than memory_budget.
        memory_budget: How much memory the decoded images of all splits may take in each process, in GiB.
        num_workers: Worker processes that decode, where images are not in memory; None: one a core, at most 8.
        streaming: Read from the hub or from files while training, for sets larger than the disk.
        on_error: Whether an image that cannot be read is an error (``raise``), or left out and counted (``skip``).
        seed: Decides order and mirroring of the training images. Splits and subset do not depend on it.
        condition_columns: Further columns for models, such as those of ``metadata.csv``, which batches carry by name:
            text and booleans as the number of the value, in alphabetical order, numbers and lists of them as they are.
        binarise: Makes every value black or white, with its gray level as the probability of white:
            ``StaticBinarisation`` once and for all, ``DynamicBinarisation`` anew in each training batch. None keeps the
            gray levels.

    Raises:
        ValueError: If an argument has no meaning.
    """

    def __init__(
        self,
        dataset: str | Path = "fashion-mnist",
        image_size: int | tuple[int, int] | None = None,
        batch_size: int = 128,
        config_name: str | None = None,
        revision: str | None = None,
        train_split: str | None = None,
        val_split: str | None = None,
        test_split: str | None = None,
        val_fraction: float = 0.1,
        subset: int | None = None,
        image_column: str = "auto",
        label_column: str | None = "auto",
        channels: Literal["auto", 1, 3] = "auto",
        background: str = "white",
        random_flip: bool = False,
        in_memory: Literal["auto"] | bool = "auto",
        memory_budget: float = 4.0,
        num_workers: int | None = None,
        streaming: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
        seed: int = 0,
        binarise: Binarisation | None = None,
        condition_columns: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if isinstance(dataset, os.PathLike):
            dataset = os.fspath(dataset)
            self._init_args |= {"dataset": dataset}  # a checkpoint keeps plain data
        self.dataset = dataset
        self.config_name, self.revision = config_name, revision
        self.image_size, self.batch_size = image_size, batch_size
        self.split_names = {"train": train_split, "val": val_split, "test": test_split}
        self.val_fraction, self.subset = val_fraction, subset
        self.image_column, self.label_column = image_column, label_column
        self.channels, self.background, self.random_flip = channels, background, random_flip
        self.in_memory, self.memory_budget, self.num_workers = in_memory, memory_budget, num_workers
        self.streaming, self.skip_unreadable, self.seed = streaming, on_error == "skip", seed
        self.binarise = binarise
        self.condition_columns = condition_columns
        self._opened: dict[str, DecodedImages | EncodedImages] = {}
        self._has_warned = False
        self._check_arguments(on_error)

    def _check_arguments(self, on_error: str) -> None:
        check_text("dataset", self.dataset, "an embedded set, a path or a hub id", optional=False)
        for name in ("config_name", "revision"):
            check_text(name, getattr(self, name), "a name on the hub, or null")
        for split, given in self.split_names.items():
            check_text(f"{split}_split", given, "the source's name of a split, or null to find it")
        check_text("image_column", self.image_column, "a column's name, or auto", optional=False)
        check_text("label_column", self.label_column, "a column's name, auto, or null for no labels")
        for name, least in {"batch_size": 1, "seed": 0}.items():
            check_count(name, getattr(self, name), at_least=least, optional=False)
        for name, least in {"subset": 1, "num_workers": 0}.items():
            check_count(name, getattr(self, name), at_least=least)
        height_and_width(self.image_size)
        check_range("val_fraction", self.val_fraction, above=0, below=0.5, optional=False)
        check_range("memory_budget", self.memory_budget, at_least=0, optional=False)
        choices = {"channels": ("auto", 1, 3), "in_memory": ("auto", True, False)}
        flags = dict.fromkeys(("random_flip", "streaming"), (True, False))
        for name, allowed in {**choices, **flags}.items():
            check_choice(name, getattr(self, name), allowed)
        check_choice("on_error", on_error, ("raise", "skip"))
        if self.binarise is not None and not isinstance(self.binarise, Binarisation):
            raise ValueError(f"binarise={self.binarise!r}: it must be StaticBinarisation, DynamicBinarisation or null")
        check_background(self.background)
        columns = self.condition_columns
        if not isinstance(columns, list | tuple) or not all(isinstance(name, str) for name in columns):
            raise ValueError(f"condition_columns={columns!r}: give a list of names, such as [colour, age]")
        self._check_streaming()

    def _check_streaming(self) -> None:
        whole = {"subset": self.subset, "in_memory": self.in_memory, "condition_columns": list(self.condition_columns)}
        for name, value in whole.items():
            if self.streaming and value not in (None, False, "auto", []):
                raise ValueError(f"{name}={value!r} needs the whole set at once; leave it out, or do without streaming")

    @functools.cached_property
    def _source(self) -> Source:
        return open_source(
            self.dataset,
            config_name=self.config_name,
            revision=self.revision,
            streaming=self.streaming,
            skip_unreadable=self.skip_unreadable,
            split_names=self.split_names.values(),
        )

    @functools.cached_property
    def _parts(self) -> Parts:
        columns = self.image_column, self.label_column
        return open_parts(
            self._source, self.split_names, self.val_fraction, *columns, self.subset, self.condition_columns
        )

    @functools.cached_property
    def _decoder(self) -> Decoder:
        return choose_decoder(self._survey, self.image_size, self.channels, self.background)

    @functools.cached_property
    def _survey(self) -> Survey:
        return look(self._parts, self.image_size, self.channels, self.skip_unreadable)

    @property
    def name(self) -> str:  # type: ignore[override]
        """A short name for run folders and reports: ``fashion-mnist``, ``owner/name``, or a folder's or file's name."""
        return self._source.name

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return (self._decoder.channels, *self._decoder.size)

    @property
    def num_classes(self) -> int | None:
        """The number of classes, or None if there are no labels."""
        return None if self.class_names is None else len(self.class_names)

    @property
    def class_names(self) -> list[str] | None:
        """What the classes are called, in the order of the labels, or None if there are no labels."""
        return None if self._parts.classes is None else list(self._parts.classes.names)

    def num_images(self, split: Split) -> int | None:
        """The number of images in ``train``, ``val`` or ``test``, or None for a stream that does not tell."""
        try:
            return len(self._opened.get(split, self._part(split)))
        except TypeError:
            return None

    def num_skipped(self, split: Split) -> int:
        """How many files and images were left out so far because they cannot be read (``on_error: skip``)."""
        return self._source.skipped + int(self._opened.get(split, self._part(split)).num_skipped)

    def fingerprint(self, split: Split, limit: int | None = None) -> str:
        """A hex digest of the images in :meth:`loader`: it changes with the data and with all that is done to them."""
        num_images = self.num_images(split)
        check_count("limit", limit)
        identity = {
            "data": self._source.identity,
            "share": dataclasses.astuple(self._parts.shares[split]),
            "columns": self._parts.columns,
            "subset": self.subset if split == "train" else None,
            "decoder": dataclasses.astuple(self._decoder),
            "skip_unreadable": self.skip_unreadable,
            "limit": limit if limit is None or num_images is None or limit < num_images else None,
            "version": 1,  # of the rules by which splits are cut and images are decoded
            **self._binarised,
            **({"condition_columns": list(self.condition_columns)} if self.condition_columns else {}),
        }
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def protocol(self, split: Split) -> dict[str, Any]:
        """What should accompany a number measured on ``split``: data set, split, size, resizing …, as plain data."""
        num_skipped = self.num_skipped(split)
        return {
            "dataset": self.name,
            "split": split,
            "source_split": str(self._parts.shares[split]),
            **(
                {"test_images": f"the validation images, {ON_VALIDATION}"}
                if split == "test" and self._tests_on_validation
                else {}
            ),
            "num_images": self.num_images(split),
            "image_size": list(self._decoder.size),
            "channels": self._decoder.channels,
            "resizing": self._decoder.resizing,
            **self._binarised,
            **({"subset": self.subset} if split == "train" and self.subset else {}),
            **({"skipped": num_skipped} if num_skipped else {}),
        }

    def plan(self) -> dict[str, str]:
        """What was found, what is made of it, and what mirroring would do, as lines for people."""
        splits: tuple[Split, ...] = ("train", "val", "test")
        counts: dict[str, int | None] = {split: self.num_images(split) for split in splits}
        skipped = sum(map(self.num_skipped, splits)) - 2 * self._source.skipped  # which each of them counts
        labels = None if self.streaming else cast(Part, self._part("train")).labels
        without = left_out(skipped, self._source.skipped_first)
        about = {
            "found": found(counts, self._survey, labels, self.num_classes, without),
            "made": made(self._decoder, self._survey, self.subset),
            "mirrored": mirroring(self.random_flip, counts["train"]),
        }
        return {name: line for name, line in about.items() if line}

    @property
    def _binarised(self) -> dict[str, str]:
        return {} if self.binarise is None else {"binarised": self.binarise.name}

    def prepare_data(self) -> None:
        """Download what has to be downloaded (Lightning calls this in one process of each machine)."""
        _ = self._decoder

    def setup(self, stage: str) -> None:
        """Open what is there; whatever is wrong with it is said here at the latest."""
        _ = self._decoder

    def training_loader(self) -> DataLoader:
        """Shuffled training images; the loader can resume in the middle of an epoch."""
        if self.streaming:
            stream = self._stream("train", self.batch_size, shuffle_seed=self.seed, mirror=self.random_flip)
            return ResumableLoader(stream, **self._options(stream))
        images = self._images("train")
        sampler = ShuffledBatches(len(images), self.batch_size, seed=self.seed, mirror=self.random_flip)
        return ResumableLoader(images, sampler=sampler, **self._options(images))

    def loader(self, split: Split, *, batch_size: int | None = None, limit: int | None = None) -> DataLoader:
        """Images for evaluation: in a fixed order, not mirrored, and of several processes each gets its own share.

        Args:
            split: ``train``, ``val`` or ``test``.
            batch_size: Images a batch and process; by default the data module's.
            limit: Take so many images, always the same ones, with the classes in their proportions. Of a stream they
                are the first.
        """
        check_count("batch_size", batch_size)
        check_count("limit", limit)
        batch_size = batch_size or self.batch_size
        if split == "test":
            self._warn_of_validation()
        if self.streaming:
            stream = self._stream(split, batch_size, limit=limit)
            return ImageLoader(stream, **self._options(stream))
        images = self._images(split)
        index = np.arange(len(images))
        if limit is not None and limit < len(images):
            index = np.sort(spread(images.labels, len(images))[:limit])
        return ImageLoader(images, sampler=SequentialBatches(index, batch_size), **self._options(images))

    @property
    def _tests_on_validation(self) -> bool:
        shares = self._parts.shares
        return shares["test"] == shares["val"]

    def _warn_of_validation(self) -> None:
        if self._tests_on_validation and not self._has_warned:
            self._has_warned = True
            origin = self._parts.shares["test"].origin
            rank_zero_warn(
                f"{self.name} has no test images: the validation images ({origin}) stand in, {ON_VALIDATION}; name "
                "others by test_split"
            )

    def _part(self, split: str) -> Part | StreamedPart:
        if split not in self._parts.images:
            raise ValueError(f"split={split!r} is none of {', '.join(self._parts.images)}")
        return self._parts.images[split]

    def _images(self, split: str) -> DecodedImages | EncodedImages:
        """The images of a split that is not a stream; decoded when first asked for if they are kept in memory."""
        if split not in self._opened:
            part = cast(Part, self._part(split))
            kind = DecodedImages if self._are_in_memory() else EncodedImages
            self._opened[split] = kind(part, self._decoder, self.skip_unreadable, self.binarise)
        return self._opened[split]

    def _are_in_memory(self) -> bool:
        if self.in_memory != "auto":
            return self.in_memory
        num_bytes = sum(map(len, self._parts.images.values())) * math.prod(self.image_shape)
        return num_bytes <= self.memory_budget * 2**30

    def _stream(self, split: str, batch_size: int, **options: Any) -> StreamedImages:
        part = cast(StreamedPart, self._part(split))
        options |= {"skip_unreadable": self.skip_unreadable, "num_threads": max(1, self._num_workers)}
        options |= {"binarise": self.binarise}
        return StreamedImages(part, self._decoder, batch_size, **options)

    def _options(self, images: DecodedImages | EncodedImages | StreamedImages) -> dict[str, Any]:
        workers = min(self._num_workers, images.max_workers)
        return {
            "batch_size": None,  # samplers and data sets deal in whole batches
            "num_workers": workers,
            "persistent_workers": workers > 0 and isinstance(images, EncodedImages),
            "pin_memory": workers > 0 and torch.cuda.is_available(),
        }

    @property
    def _num_workers(self) -> int:
        return min(8, os.cpu_count() or 1) if self.num_workers is None else self.num_workers
