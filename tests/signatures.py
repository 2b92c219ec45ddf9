"""Whether a class has what a protocol asks for, called as the protocol calls it."""

import inspect
from typing import Any


def meets(cls: type, protocol: type) -> bool:
    """Whether each method of ``protocol`` can be called on ``cls`` with the same arguments, by place or by name."""
    methods = [name for name, value in vars(protocol).items() if inspect.isfunction(value) and not name.startswith("_")]
    return all(hasattr(cls, name) and takes(getattr(cls, name), getattr(protocol, name)) for name in methods)


def takes(method: Any, wanted: Any) -> bool:
    own, asked = (list(inspect.signature(function).parameters.values()) for function in (method, wanted))
    by_name = {parameter.name: parameter for parameter in own}
    by_place = [parameter.name for parameter in asked if parameter.kind is not parameter.KEYWORD_ONLY]
    return (
        [parameter.name for parameter in own][: len(by_place)] == by_place
        and all(p.name in by_name and by_name[p.name].default == p.default for p in asked)
        and all(p.default is not p.empty for p in own if p.name not in {q.name for q in asked})
    )
