"""From a source's tables to the training, validation and test images, and to what is known of them beforehand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_generative.data.arguments import height_and_width
from lit_generative.data.columns import Classes, find_image_column, find_label_column, read_labels
from lit_generative.data.conditions import ConditionColumns
from lit_generative.data.decode import Decoder, different_sizes
from lit_generative.data.pixel_lists import PixelLists
from lit_generative.data.sources import Source
from lit_generative.data.splits import Part, Share, shares, spread_evenly
from lit_generative.data.streams import StreamedPart
from lit_generative.data.surveys import Survey, survey

__all__ = ["Parts", "choose_decoder", "look", "open_parts"]

_LOOKED_AT = 4096  # headers read to learn sizes and colours; of a longer list an even sample
_LOOKED_AT_IF_GIVEN = 64  # where size and channels are given, and only what is white is to be learnt
_LOOKED_AT_IN_STREAM = 64


@dataclass(frozen=True)
class Parts:
    """The three splits (keys ``train``, ``val``, ``test``) of a source, their origins, the classes, the columns."""

    images: dict[str, Part | StreamedPart]
    shares: dict[str, Share]
    classes: Classes | None
    columns: tuple[str, str | None]


def open_parts(
    source: Source,
    split_names: dict[str, str | None],
    val_fraction: float,
    image_column: str,
    label_column: str | None,
    subset: int | None,
    condition_columns: Sequence[str] = (),
) -> Parts:
    """Find columns and splits.

    Args:
        source: The opened source.
        split_names: The source's names of ``train``, ``val`` and ``test``; None finds them.
        val_fraction: The share of the training split that stands in for missing ones.
        image_column: Its name, or ``auto``.
        label_column: Its name, ``auto``, or None for no labels.
        subset: How many training images to keep, equally many a class, or None for all.
        condition_columns: Further columns for models.

    Raises:
        ValueError: If columns, splits or labels are missing or ambiguous, or too few images are left.
    """
    found = shares(source.tables, split_names["train"], split_names["val"], split_names["test"], val_fraction)
    train = source.tables[found["train"].origin]
    features = train.features or {}
    image = find_image_column(features, image_column)
    label = find_label_column(features, label_column)
    if not hasattr(train, "__len__"):
        return _open_streams(source, found, image, label, label_column)
    classes = Classes.of(train, label) if label else None
    more = ConditionColumns.of(train, condition_columns)
    whole = {share.origin: _whole(source, share.origin, image, label, classes, more) for share in found.values()}
    parts: dict[str, Part | StreamedPart] = {}
    for split, share in found.items():
        part = whole[share.origin].take(share)
        if split == "train" and subset is not None:
            if subset > len(part):
                raise ValueError(f"subset={subset:,} is more than the {len(part):,} training images")
            part = part.only(np.sort(spread_evenly(part.labels, len(part))[:subset]))
        parts[split] = part
    return Parts(parts, found, classes, (image, label))


def _whole(
    source: Source, origin: str, image: str, label: str | None, classes: Classes | None, more: ConditionColumns
) -> Part:
    import datasets

    table = source.tables[origin]
    for column in filter(None, (image, label)):
        if column not in table.column_names:
            raise ValueError(f"the split {origin!r} has no column {column!r}, which the training split has")
    labels = read_labels(table, label, classes, origin) if label and classes else None
    encoded = table.select_columns([image])
    pixels = PixelLists.find(table, image)
    encoded = pixels.apply(encoded) if pixels else encoded.cast_column(image, datasets.Image(decode=False))
    return Part(encoded, image, np.arange(len(table)), labels, origin, more.read(table, origin))


def _open_streams(source: Source, found: dict[str, Share], image: str, label: str | None, wanted: str | None) -> Parts:
    import datasets

    features = source.tables[found["train"].origin].features
    names = getattr(features[label], "names", None) if label else None
    if label and names is None:
        if wanted == label:
            raise ValueError(
                f"label_column={label!r} does not say how many classes there are, and a stream cannot be counted; "
                "give label_column: null, or do without streaming"
            )
        label = None
    classes = Classes(tuple(names)) if names else None
    parts: dict[str, Part | StreamedPart] = {}
    for split, share in found.items():
        columns = [c for c in (image, label) if c]
        table = source.tables[share.origin].select_columns(columns)
        pixels = PixelLists.find(table, image)
        table = pixels.apply(table, columns) if pixels else table.cast_column(image, datasets.Image(decode=False))
        parts[split] = StreamedPart(table, image, label, classes, share)
    return Parts(parts, found, classes, (image, label))


def look(parts: Parts, image_size: int | tuple[int, int] | None, channels: int | str, skip_unreadable: bool) -> Survey:
    """Look at the images' headers: at fewer of them where size and channels are given.

    Raises:
        ValueError: If an image cannot be read, or if those of more than 8 bits do not tell what is white.
    """
    is_given = image_size is not None and channels != "auto"
    return survey(_sample(parts, _LOOKED_AT_IF_GIVEN if is_given else _LOOKED_AT), skip_unreadable)


def choose_decoder(
    seen: Survey, image_size: int | tuple[int, int] | None, channels: int | str, background: str
) -> Decoder:
    """Decide shape and channels, as far as they are not given, and what is white.

    Args:
        seen: What the images' headers tell.
        image_size: Height and width in pixels, one number for both or two. None keeps the size that all images have.
        channels: 1, 3, or ``auto``: 3 if any of the images looked at is in colour.
        background: The colour behind transparent pixels.

    Raises:
        ValueError: If no size is given and the images have several.
    """
    size = height_and_width(image_size)
    if size is None and len(seen.sizes) > 1:
        (h1, w1), (h2, w2) = sorted(seen.sizes)[:: len(seen.sizes) - 1]
        raise ValueError(different_sizes(f"from {h1}x{w1} to {h2}x{w2}, height x width"))
    accept_colour = channels != "auto" or seen.colour
    if channels == "auto":
        channels = 3 if seen.colour else 1
    resize = size is not None
    return Decoder(int(channels), size or next(iter(seen.sizes)), resize, background, accept_colour, seen.white)


def _sample(parts: Parts, at_most: int) -> Iterator[tuple[dict[str, Any], str]]:
    for part in parts.images.values():
        if isinstance(part, StreamedPart):
            yield from part.encoded(_LOOKED_AT_IN_STREAM)
            return  # the others would open more connections
        index = np.linspace(0, len(part) - 1, min(len(part), at_most)).astype(int)
        for chunk in np.array_split(index, -(-len(index) // 256)):
            yield from part.encoded(chunk)
