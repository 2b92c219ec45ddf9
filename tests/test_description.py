import copy
import functools

import pytest
import torch
from torch import nn

from lit_generative.description import Described, describe, rebuild


class Plain(nn.Module):
    """A user's network that knows nothing of this package, though it stores its argument."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.width = width


class Remembering(Described, nn.Module):
    def __init__(self, width: int, *, inner: nn.Module | None = None, factor: float = 1.0) -> None:
        super().__init__()
        self.width, self.inner, self.factor = width, inner, factor


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, (2.5, None)], "b": "text", "c": True},
        torch.optim.SGD,
        nn.SiLU,
    ],
)
def test_what_is_described_is_rebuilt(value: object) -> None:
    assert rebuild(describe(value)) == value


def test_partials_keep_their_keywords() -> None:
    rebuilt = rebuild(describe(functools.partial(torch.optim.SGD, lr=0.5)))
    assert rebuilt([nn.Parameter(torch.ones(1))]).defaults["lr"] == 0.5


def test_networks_are_rebuilt_with_their_arguments() -> None:
    rebuilt = rebuild(describe(Remembering(3, inner=Remembering(6, factor=0.3))))
    assert (rebuilt.width, rebuilt.inner.width, rebuilt.inner.factor) == (3, 6, 0.3)


def test_a_copy_is_described_like_the_original() -> None:
    network = Remembering(3, inner=Remembering(4))
    assert describe(copy.deepcopy(network)) == describe(network)


@pytest.mark.parametrize("network", [Plain(4), nn.Identity(), nn.Sequential(nn.Linear(2, 2))])
def test_a_network_that_does_not_describe_itself_must_be_passed_in(network: nn.Module) -> None:
    described = describe(Remembering(1, inner=network))
    name = type(network).__name__
    with pytest.raises(ValueError, match=f"was a .*{name}.*pass inner=… when loading, or derive its class"):
        rebuild(described)


def test_a_function_is_missed_only_when_it_is_called() -> None:
    rebuilt = rebuild(describe(Remembering(1, inner=lambda x: x)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="<lambda>"):
        rebuilt.inner(1)


@pytest.mark.parametrize("path", ["os.system", "subprocess.Popen", "builtins.eval", "pathlib.Path"])
def test_a_description_calls_nothing_but_networks_and_the_like(path: str) -> None:
    with pytest.raises(TypeError, match="is not called from a file"):
        rebuild({"class_path": path, "init_args": {}})
    with pytest.raises(TypeError, match="is not called from a file"):
        rebuild({"partial": path, "keywords": {}})


def test_a_description_imports_nothing() -> None:
    with pytest.raises(ImportError, match="`import antigravity` first"):
        rebuild({"class_path": "antigravity.Network", "init_args": {}})
