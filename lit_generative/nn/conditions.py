"""What a model is told of the image that it is to make, and how a network takes that in."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative.checks import check_count
from lit_generative.description import Described
from lit_generative.nn.embeddings import ClassEmbedding

__all__ = [
    "AttributeCondition",
    "ClassCondition",
    "Condition",
    "VectorCondition",
    "channels_beside",
    "condition_of",
    "embedding_of",
    "labels_of",
    "with_condition",
]


class Condition(Described, ABC):
    """What a model is told of each image: one tensor y (B, ...), made from a batch and given to the network.

    A condition has no weights. It says how it is embedded, by one of two ways or both: as a vector that is added to
    the features of time or style (:meth:`embedding`), or as channels beside those of the image (:meth:`channels`).

    Attributes:
        none: What y holds, everywhere, where nothing is given, as guidance needs it.
        num_classes: How many classes there are, if y are their numbers; None: it is something else.
        asks: What one has to give, in words, for errors.
    """

    none: float
    num_classes: int | None = None
    asks: str

    @abstractmethod
    def of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return y (B, ...) of a batch, which has ``image`` and further conditions by name.

        Raises:
            ValueError: If it is not there.
        """

    @abstractmethod
    def check(self, y: Tensor | None, n: int) -> None:
        """Refuse what is no condition of ``n`` images.

        Raises:
            ValueError: The message says what would do.
        """

    def told(self, y: Tensor, is_training: bool = False) -> Tensor:
        """Return what the network is given for y: y itself, or, by torch's random numbers, a noisy one."""
        return y

    def embedding(self, dim: int, has_none: bool = True) -> nn.Module:
        """Return a module that adds y, as a vector, to features (B, dim, ...); by default it adds nothing.

        Args:
            dim: The size of the vector.
            has_none: Whether y may be :attr:`none`.
        """
        return ClassEmbedding(None, dim)

    def channels(self, image_channels: int) -> int:
        """Return how many channels come beside those of the image, (C, H, W)."""
        return 0

    def beside(self, y: Tensor) -> Tensor:
        """Return these channels, (B, channels, H, W)."""
        return y[:, :0]


class ClassCondition(Condition):
    """One of several classes; y are their numbers (B,), int64. It is what ``num_classes`` means, too.

    Args:
        num_classes: How many there are; that number itself means that none is given.
    """

    def __init__(self, num_classes: int) -> None:
        check_count("num_classes", num_classes, optional=False)
        self.num_classes = num_classes
        self.none = num_classes
        self.asks = f"classes from 0 to {num_classes - 1}"

    def of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return ``label``."""
        if "label" not in batch:
            raise ValueError(f"num_classes={self.num_classes}, but a batch has no labels: give (image, label)")
        return batch["label"]

    def check(self, y: Tensor | None, n: int) -> None:
        """Refuse what are no numbers of classes."""
        if y is not None and not isinstance(y, Tensor):
            raise ValueError(f"y={y}: it must be a tensor of class numbers, for instance torch.tensor([0, 1])")
        if y is None or y.shape != (n,):
            shape = None if y is None else tuple(y.shape)
            raise ValueError(f"y has shape {shape}: a model of classes needs labels ({n},)")
        if y.is_floating_point() or y.dtype == torch.bool:
            kind = str(y.dtype).removeprefix("torch.")
            raise ValueError(f"y is {kind}: give the classes' numbers, for instance y.long()")
        if not 0 <= int(y.min()) <= int(y.max()) < self.none:
            raise ValueError(
                f"y has labels {int(y.min())} to {int(y.max())}: the classes are 0 to {int(self.none) - 1}"
            )

    def embedding(self, dim: int, has_none: bool = True) -> nn.Module:
        """Return a vector for each class, and one for "none"."""
        return ClassEmbedding(int(self.none) + has_none, dim)


class AttributeCondition(Condition):
    """Several attributes at once, each one of some values; y (B, A) are the values' numbers, int64, -1 where none is.

    Args:
        attributes: The number of values by the attribute's name, which is that of a column
            (``data.condition_columns``), for instance ``{colour: 5, hat: 2}``.
    """

    none = -1

    def __init__(self, attributes: dict[str, int]) -> None:
        if not isinstance(attributes, Mapping) or not attributes:
            raise ValueError(
                f"attributes={attributes!r}: give numbers of values by name, such as {{colour: 5, hat: 2}}"
            )
        for name, count in attributes.items():
            check_count(f"attributes[{name!r}]", count, at_least=2, optional=False)
        self.attributes = dict(attributes)
        self.asks = f"values of {', '.join(f'{name} (0 to {count - 1})' for name, count in self.attributes.items())}"

    def of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the columns side by side."""
        columns = [_column(batch, name, "AttributeCondition") for name in self.attributes]
        if bad := [n for n, c in zip(self.attributes, columns, strict=True) if c.is_floating_point() or c.ndim != 1]:
            raise ValueError(f"attributes: the column {bad[0]!r} has no numbers of values; take it by VectorCondition")
        y = torch.stack([column.long() for column in columns], dim=1)
        self.check(y, len(y))
        return y

    def check(self, y: Tensor | None, n: int) -> None:
        """Refuse what is no number of a value; -1 is that none is given."""
        if not isinstance(y, Tensor) or y.shape != (n, len(self.attributes)) or y.is_floating_point():
            raise ValueError(f"y {_shown(y)}: give whole numbers ({n}, {len(self.attributes)}), {self.asks}")
        for (name, count), column in zip(self.attributes.items(), y.T, strict=True):
            low, high = int(column.min()), int(column.max())
            if not -1 <= low <= high < count:
                raise ValueError(f"{name} has values {low} to {high}: they are 0 to {count - 1}, and -1 is none")

    def embedding(self, dim: int, has_none: bool = True) -> nn.Module:
        """Return a vector for each value of each attribute, which are added up."""
        return _AttributeEmbedding(list(self.attributes.values()), dim)


class VectorCondition(Condition):
    """Numbers from columns, side by side; y (B, dim), float, NaN where one is not known.

    Args:
        columns: Their names (``data.condition_columns``).
        dim: How many numbers they are together; None: one a column.
        mean: What is subtracted first, a number a column, as (B, dim) is best of the size of 1. None: nothing.
        scale: What it is then divided by. None: nothing.
    """

    none = float("nan")

    def __init__(
        self,
        columns: Sequence[str],
        dim: int | None = None,
        mean: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
    ) -> None:
        if isinstance(columns, str) or not columns:
            raise ValueError(f"columns={columns!r}: give a list of names, such as [age, height]")
        check_count("dim", dim, at_least=len(columns))
        self.columns, self.dim = list(columns), dim or len(columns)
        for name, values in {"mean": mean, "scale": scale}.items():
            if values is not None and len(values) != self.dim:
                raise ValueError(f"{name}={list(values)}: give one number for each of the {self.dim} in y")
        if scale is not None and not all(value > 0 for value in scale):
            raise ValueError(f"scale={list(scale)}: what numbers are divided by must be positive")
        self.mean, self.scale = list(mean or [0.0] * self.dim), list(scale or [1.0] * self.dim)
        self.asks = f"numbers of {', '.join(self.columns)}"

    def of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the columns side by side."""
        columns = [_column(batch, name, "VectorCondition").float() for name in self.columns]
        y = torch.cat([column.flatten(1) if column.ndim > 1 else column[:, None] for column in columns], dim=1)
        self.check(y, len(y))
        return y

    def check(self, y: Tensor | None, n: int) -> None:
        """Refuse another number of numbers, and infinite ones."""
        if not isinstance(y, Tensor) or y.shape != (n, self.dim) or not y.is_floating_point():
            raise ValueError(f"y {_shown(y)}: give floats ({n}, {self.dim}), {self.asks}")
        if y.isinf().any():
            raise ValueError("y has infinite values: give numbers, or NaN where one is not known")

    def embedding(self, dim: int, has_none: bool = True) -> nn.Module:
        """Return two layers that take the numbers, and which of them are known."""
        return _VectorEmbedding(self.mean, self.scale, dim)


class _AttributeEmbedding(nn.Module):
    """A sum of vectors, one for each attribute; zero at first."""

    def __init__(self, counts: Sequence[int], dim: int) -> None:
        super().__init__()
        self.counts = list(counts)
        self.embeddings = nn.ModuleList(nn.Embedding(count + 1, dim) for count in counts)
        for embedding in self.embeddings:
            nn.init.zeros_(embedding.weight)  # type: ignore[arg-type]

    def forward(self, features: Tensor, y: Tensor | None) -> Tensor:
        if y is None:
            raise ValueError("y=None: the network is told attributes, and needs some for each image")
        values = [torch.where(v < 0, count, v) for v, count in zip(y.T, self.counts, strict=True)]
        vectors = sum(embedding(v) for embedding, v in zip(self.embeddings, values, strict=True))
        return _added(features, vectors)  # type: ignore[arg-type]


class _VectorEmbedding(nn.Module):
    """Numbers and which of them are known, through a layer, SiLU and a layer that is zero at first."""

    def __init__(self, mean: Sequence[float], scale: Sequence[float], dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(2 * len(mean), dim)
        self.second = nn.Linear(dim, dim)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)
        self.mean, self.scale = (nn.Buffer(torch.tensor(v).float(), persistent=False) for v in (mean, scale))

    def forward(self, features: Tensor, y: Tensor | None) -> Tensor:
        if y is None:
            raise ValueError("y=None: the network is told a vector, and needs one for each image")
        is_known = ~y.isnan()
        values = torch.where(is_known, (y - self.mean) / self.scale, 0)
        given = torch.cat([values, is_known.to(values.dtype)], dim=1).to(self.first.weight.dtype)
        return _added(features, self.second(F.silu(self.first(given))))


def _added(features: Tensor, vectors: Tensor) -> Tensor:
    """Add vectors (B, dim) to features (B, dim, ...), everywhere the same."""
    return features + vectors.view(*vectors.shape, *[1] * (features.ndim - 2))


def _column(batch: Mapping[str, Tensor], name: str, asked_by: str) -> Tensor:
    if name not in batch:
        there = ", ".join(batch)
        raise ValueError(
            f"condition={asked_by}: a batch has no {name!r}, only {there}; name the column of metadata.csv in "
            "data.condition_columns"
        )
    return batch[name]


def _shown(y: Any) -> str:
    return f"has shape {tuple(y.shape)}, {str(y.dtype)[6:]}" if isinstance(y, Tensor) else f"is {y}"


def condition_of(num_classes: int | None, condition: Condition | None) -> Condition | None:
    """Return what two arguments mean together: ``num_classes`` is short for a :class:`ClassCondition`.

    Raises:
        ValueError: If they contradict each other, or ``condition`` is none.
    """
    check_count("num_classes", num_classes)
    if condition is None:
        return None if num_classes is None else ClassCondition(num_classes)
    if not isinstance(condition, Condition):
        raise ValueError(f"condition={condition!r}: it must be an object such as ClassCondition(10), or null")
    if num_classes not in (None, condition.num_classes):
        own = type(condition).__name__
        raise ValueError(f"num_classes={num_classes} beside condition={own}: leave one of them out")
    return condition


def labels_of(condition: Condition | None) -> int | None:
    """Return how many classes a condition has; None where it has none or is another one."""
    return None if condition is None else condition.num_classes


def embedding_of(condition: Condition | None, dim: int, has_none: bool = True) -> nn.Module:
    """Return what adds a condition, as a vector, to features (B, dim, ...); without one it adds nothing."""
    return ClassEmbedding(None, dim) if condition is None else condition.embedding(dim, has_none)


def channels_beside(condition: Condition | None, image_channels: int) -> int:
    """Return how many channels a condition puts beside those of the image."""
    return 0 if condition is None else condition.channels(image_channels)


def with_condition(condition: Condition | None, x: Tensor, y: Tensor | None) -> Tensor:
    """Return images (B, C, H, W) with the channels of a condition beside theirs.

    Raises:
        ValueError: If y is missing, or of another size.
    """
    if condition is None or not channels_beside(condition, x.shape[1]):
        return x
    if y is None or y.ndim != 4 or y.shape[2:] != x.shape[2:]:
        raise ValueError(f"y {_shown(y)}: the network needs {condition.asks}, of the images' size {tuple(x.shape[2:])}")
    return torch.cat([x, condition.beside(y).to(x.dtype)], dim=1)
