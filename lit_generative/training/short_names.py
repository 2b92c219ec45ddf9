"""Short names of classes: of ours and a library's of the same name, ours is meant."""

import re
from typing import Any

from jsonargparse import _typehints

__all__ = ["prefer_ours"]

_resolve = _typehints.resolve_class_path_by_name


def prefer_ours() -> None:
    """Let a short name such as ``WandbLogger`` mean ours, where Lightning's or torch's is called so, too.

    jsonargparse refuses a name that several classes have, and has no setting for that.
    """
    _typehints.resolve_class_path_by_name = _resolved


def _resolved(cls: Any, name: str) -> str:
    try:
        return _resolve(cls, name)
    except ValueError as error:
        ours = re.findall(r"\blit_generative\.[\w.]*\w", str(error))
        if len(ours) != 1:
            raise
        return ours[0]
