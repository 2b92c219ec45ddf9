"""Objects as plain data: what a checkpoint holds so that a model can be rebuilt in a new process.

A description is made of None, booleans, numbers, strings, lists, tuples and dicts, so that it loads with
``torch.load(weights_only=True)`` and can be read by a person. It has the form that LightningCLI uses in YAML:
``{"class_path": "package.module.Class", "init_args": {...}}``, nested as the objects are.
"""

import argparse
import contextlib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, NoReturn

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["Described", "check", "describe", "factory_of", "find", "rebuild", "unwrapped"]

MOST_VALUES = 100_000


class Described:
    """A mixin for classes that remember the arguments they were constructed with.

    Put it first among the bases of a network (``class MyEncoder(Described, nn.Module)``); nothing else is needed for
    checkpoints to rebuild it. Arguments are plain data, classes, or objects that can be described themselves.
    """

    _init_args: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        self = super().__new__(cls)
        object.__setattr__(self, "_init_args", _describe_arguments(cls, args, kwargs))
        return self


def _describe_arguments(cls: type, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    if not args and not kwargs:  # also how copy and pickle create an instance
        return {}
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    try:
        bound = signature.bind_partial(None, *args, **kwargs)
    except TypeError:  # the constructor itself says what is wrong with its arguments
        return {}
    arguments = dict(list(bound.arguments.items())[1:])  # without self
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name, {})
    return {name: describe(value) for name, value in arguments.items()}


def describe(value: Any) -> Any:
    """Describe ``value`` as plain data; numbers of numpy and paths become Python's numbers and text.

    What cannot be described (a lambda, a network that is not :class:`Described`) becomes ``{"opaque": its name,
    "is_module": whether it is a network}``, and ``"is_value": True`` for what nothing can call (a tensor, a set), which
    :func:`rebuild` answers with an error that says what to pass instead.
    """
    value = _plain(unwrapped(value))
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return tuple(map(describe, value)) if isinstance(value, tuple) else list(map(describe, value))
    if isinstance(value, dict):
        return {_plain(key): describe(v) for key, v in value.items()}
    if isinstance(value, Described) and _is_found(type(value)):
        return {"class_path": _path(type(value)), "init_args": value._init_args}
    if isinstance(value, functools.partial):
        factory = factory_of(value)
        keywords = {key: describe(v) for key, v in value.keywords.items()}
        return {"partial": _path(factory), "keywords": keywords} if _may_build(factory) else _opaque(factory)
    if _may_build(value):
        return {"import_path": _path(value)}
    return _opaque(value)


def unwrapped(value: Any) -> Any:
    """Return the network that ``torch.compile`` has wrapped, and anything else as it is."""
    return value._modules["_orig_mod"] if isinstance(value, nn.Module) and "_orig_mod" in value._modules else value


def _plain(value: Any) -> Any:
    """Return Python's own number, text or None for what is as good as that: ``weights_only`` reads nothing else."""
    if getattr(value, "ndim", None) == 0 and not isinstance(value, Tensor):  # a number of numpy
        return value.item()
    if isinstance(value, PurePath):
        return str(value)
    kind = next((kind for kind in (bool, int, float, str) if isinstance(value, kind)), None)
    return value if kind is None or type(value) is kind else kind(getattr(value, "value", value))


def rebuild(description: Any) -> Any:
    """Build what :func:`describe` described, once all that it names is known to be harmless.

    A file could name any class of any imported module, and a constructor may do anything: open a file, for instance,
    and unpickle it. So only these are built: classes that derive from :class:`Described`, which someone has made for
    this package and the caller has imported; torch's own layers; optimizers and schedulers.

    Raises:
        ImportError: If a class is in a module that is not imported yet, or does not exist any more.
        TypeError: If something else is named.
        ValueError: If a network is not described and must be passed in, or the description is endless.
    """
    check(description)
    return _build(description)


def check(description: Any) -> None:
    """Refuse a description that names what a file may not have built, before anything of it is; as :func:`rebuild`.

    Values may stand in a file once and be meant a billion times, so that their number is bounded.
    """
    todo, count = [description], 0
    while todo:
        value = todo.pop()
        count += 1
        if count > MOST_VALUES:
            raise ValueError(f"the description has more than {MOST_VALUES:,} values; no model has so many")
        if isinstance(value, list | tuple):
            todo += value
        elif isinstance(value, dict):
            for key, part in value.items():
                if key in ("class_path", "partial", "import_path"):
                    _find_buildable(part)
                else:
                    todo.append(part)


def _build(description: Any) -> Any:
    if isinstance(description, list | tuple):
        return type(description)(map(_build, description))
    if not isinstance(description, dict):
        return description
    keys = set(description)
    if keys == {"class_path", "init_args"}:
        cls = _find_buildable(description["class_path"])
        return _call(cls, {name: _build(_named(value, name)) for name, value in description["init_args"].items()})
    if keys == {"partial", "keywords"}:
        keywords = {name: _build(value) for name, value in description["keywords"].items()}
        return functools.partial(_find_buildable(description["partial"]), **keywords)
    if keys == {"import_path"}:
        return _find_buildable(description["import_path"])
    if "opaque" in keys:
        return _stand_in(**description)
    return {key: _build(value) for key, value in description.items()}


def _call(cls: type, arguments: dict[str, Any]) -> Any:
    """Call ``cls`` with named arguments, those by position that cannot be named: ``*widths`` and what is before it."""
    parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    has_list = any(p.kind is p.VAR_POSITIONAL and arguments.get(p.name) for p in parameters)
    positional: list[Any] = []
    for p in parameters:
        if p.name not in arguments:
            continue
        if p.kind is p.VAR_POSITIONAL:
            positional += arguments.pop(p.name)
        elif p.kind is p.POSITIONAL_ONLY or (has_list and p.kind is p.POSITIONAL_OR_KEYWORD):
            positional.append(arguments.pop(p.name))
    return cls(*positional, **arguments)


def factory_of(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a partial calls in the end; jsonargparse makes ``partial(its own functions, Class, **keywords)``."""
    if not isinstance(make, functools.partial):
        return make
    return next((value for value in make.args if isinstance(value, type)), make.func)


def find(path: str) -> Any:
    """Find what ``path`` names among the modules that are imported already: a file never causes an import.

    Raises:
        ImportError: If the module is not imported, or has no such name; the message says which.
    """
    parts = path.split(".")
    if parts[0] == __package__:  # our own modules may be lazy
        with contextlib.suppress(ImportError):
            importlib.import_module(path.rpartition(".")[0])
    for end in range(len(parts) - 1, 0, -1):  # the longest prefix that is a module
        if (found := sys.modules.get(".".join(parts[:end]))) is None:
            continue
        for part in parts[end:]:
            found = getattr(found, part, None)
        if found is not None:
            return found
    module = path.rpartition(".")[0]
    raise ImportError(
        f"{path} is gone from its module"
        if module in sys.modules
        else f"{path} is not imported; `import {module}` first (`--import {module}` on the command line)"
    )


def _find_buildable(path: Any) -> Any:
    if not isinstance(path, str):
        raise TypeError("a class is named by text")
    found = find(path)
    if not _may_build(found):
        raise TypeError(
            f"{path} is not called from a file: it is neither Described nor torch's layer, an optimizer or a schedule"
        )
    return found


def _may_build(value: Any) -> bool:
    """Whether a file may have ``value`` called."""
    if not isinstance(value, type) or not _is_importable(value):
        return False
    is_layer = issubclass(value, nn.Module) and value.__module__.startswith("torch.nn.modules.")
    return is_layer or issubclass(value, (Described, Optimizer, LRScheduler))


def _is_importable(cls: type) -> bool:
    """Whether ``cls`` is found again under its own name (a local class is not)."""
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls


def _is_found(cls: type) -> bool:
    """Whether ``cls``, or what has taken its name since (a notebook's cell run again), is found under its name."""
    with contextlib.suppress(ImportError):
        found = find(_path(cls))
        return isinstance(found, type) and issubclass(found, Described)
    return False


def _path(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _opaque(value: Any) -> dict[str, Any]:
    named = value if hasattr(value, "__qualname__") else type(value)
    # a Namespace is what a command line gives for an argument without a type hint: nobody can have used it
    is_value = {} if callable(value) or isinstance(value, nn.Module | argparse.Namespace) else {"is_value": True}
    return {"opaque": _path(named), "is_module": isinstance(value, nn.Module)} | is_value


def _named(description: Any, name: str) -> Any:
    is_opaque = isinstance(description, dict) and "opaque" in description
    return description | {"argument": name} if is_opaque else description


def _stand_in(opaque: str, is_module: bool, argument: str = "", is_value: bool = False) -> Any:
    """Raise for a network that cannot be rebuilt; for any other callable, raise only when it is called."""
    message = f"the argument {argument!r} was a {opaque}, which a file cannot describe; pass {argument}=… when loading"
    if is_module:
        hint = "derive its class from lit_generative.Described so that it remembers its arguments"
        raise ValueError(f"{message}, or {hint}")
    if is_value:
        raise ValueError(message)

    def missing(*args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(message)

    return missing
