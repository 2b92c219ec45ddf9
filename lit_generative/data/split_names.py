"""What splits are called, in folders, files and on the hub, however they are spelled."""

import functools
import re
from collections.abc import Collection, Iterable

__all__ = ["SPLITS", "find_split", "is_generic", "splits_called"]

SPLITS = ("train", "validation", "test")

_WORDS = {
    "train": ("train", "training", "trainset", "trainingset"),
    "validation": ("validation", "valid", "val", "dev", "development", "validationset", "valset", "devset"),
    "test": ("test", "testing", "testset", "testingset", "eval", "evaluation", "holdout"),
    "unlabeled": ("unlabeled", "unlabelled", "unsupervised"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
_FILLERS = {  # what may stand beside the word: train_images, img_train, test_64x64
    *("set", "data", "dataset", "split", "folder", "dir", "x", "px"),
    *("image", "images", "img", "imgs", "pic", "pics", "picture", "pictures", "photo", "photos"),
}


@functools.cache
def _words(name: str) -> frozenset[str]:
    return frozenset(re.split(r"[\W\d_]+", name.lower())) - {""}


def find_split(name: str, shared: Collection[str] = ()) -> str | None:
    """Return what a split of this name is for: one of :data:`SPLITS`, or ``unlabeled``; None if it is no such name.

    Digits, case and words such as "images" do not count, nor do ``shared`` ones, which the names beside it have, too.
    """
    words = _words(name) - _FILLERS - set(shared)
    found = {_SPLIT_OF.get(word) for word in words}
    return found.pop() if len(found) == 1 else None


def splits_called(names: Iterable[str]) -> dict[str, str]:
    """Return what each of ``names``, which stand side by side, is for; those that are no splits' names are left out."""
    names = list(names)
    shared = frozenset.intersection(*map(_words, names)) - _SPLIT_OF.keys() if len(names) > 1 else frozenset()
    found = {name: find_split(name, shared) for name in names}
    return {name: split for name, split in found.items() if split}


def is_generic(name: str) -> bool:
    """Whether a folder's name tells no class: ``images``, ``train_set``."""
    words = _words(name)
    return bool(words) and words <= _FILLERS | _SPLIT_OF.keys()
