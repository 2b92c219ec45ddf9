"""Classes by their index or their name, and names of files that say the class."""

import difflib
import re
from collections.abc import Sequence

__all__ = ["Labels", "class_indices", "class_suffix"]

Labels = int | str | list[int | str]

_MOST_LISTED = 20  # names in a message


def class_indices(labels: Labels | None, num_classes: int | None, names: Sequence[str] | None) -> list[int] | None:
    """Return the indices of the classes that are asked for; None: none was.

    Args:
        labels: An index, a name, several of them, or a text of them with commas in between. Names are compared without
            regard to case and to what stands between words.
        num_classes: How many classes there are; None: the model has none.
        names: What they are called, in the order of the indices, if that is known.

    Raises:
        ValueError: If there is no such class; the message has those that there are.
    """
    if labels is None:
        return None
    if num_classes is None:
        raise ValueError(f"labels={_written(labels)}: the model is unconditional, leave them out")
    names = list(names) if names is not None and len(names) == num_classes else None
    given = [labels] if isinstance(labels, int) else _split(labels, names) if isinstance(labels, str) else list(labels)
    if not given:
        raise ValueError(f"labels={_written(labels)}: name at least one class, {_classes(num_classes, names)}")
    return [_index(label, num_classes, names) for label in given]


def class_suffix(label: int, names: Sequence[str] | None) -> str:
    """Return what a file's name says of a class, for instance "_class_7_sneaker"."""
    known = names is not None and label < len(names)
    words = re.sub(r"[\W_]+", "-", names[label].lower()).strip("-")[:40] if known else ""  # type: ignore[index]
    return f"_class_{label}" + (f"_{words}" if words and words != str(label) else "")


def _split(labels: str, names: list[str] | None) -> list[int | str]:
    if names is not None and labels in names:  # whose name may have a comma
        return [labels]
    return [part.strip() for part in labels.strip("[]() ").split(",") if part.strip()]


def _index(label: int | str, num_classes: int, names: list[str] | None) -> int:
    """Return a class's index: a number is one, even where classes are called by other numbers."""
    if isinstance(label, str) and re.fullmatch(r"[+-]?\d+", label):
        label = int(label)
    found = label if isinstance(label, int) else _named(label, names or [])
    if found is None or not 0 <= found < num_classes:
        near = difflib.get_close_matches(_plain(str(label)), map(_plain, names or []), n=1)
        hint = next((f"; did you mean {name}?" for name in names or [] if [_plain(name)] == near), "")
        raise ValueError(f"labels={label}: there is no such class, {_classes(num_classes, names)}{hint}")
    return found


def _named(name: str, names: list[str]) -> int | None:
    """Return the index of the one class of a name."""
    if name in names:
        return names.index(name)
    alike = [i for i, other in enumerate(names) if _plain(other) == _plain(name)]
    return alike[0] if len(alike) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()


def _classes(num_classes: int, names: list[str] | None) -> str:
    """Return which classes there are, in words."""
    if names is None:
        return f"give indices from 0 to {num_classes - 1}"
    listed = ", ".join(f"{i} {name}" for i, name in enumerate(names[:_MOST_LISTED]))
    more = f", ... {num_classes - 1} {names[-1]}" if num_classes > _MOST_LISTED else ""
    return f"give indices or names of: {listed}{more}"


def _written(labels: Labels) -> str:
    if isinstance(labels, str):
        return labels or "''"
    return f"[{', '.join(map(str, labels))}]" if isinstance(labels, list | tuple) else str(labels)
