import copy
import functools
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from lit_generative.description import Described, describe, rebuild


class Stored(nn.Module):
    """A user's network that knows nothing of this package, and stores its arguments."""

    def __init__(self, shape: tuple[int, int], width: int = 3, slope: float = 0.1) -> None:
        super().__init__()
        self.shape, self.width, self.slope = shape, width, slope
        self.layer = nn.Linear(shape[0], width)
        self.register_buffer("grid", torch.arange(width) * slope, persistent=False)


class Forgetful(nn.Module):
    """A user's network that does not store its arguments."""

    def __init__(self, width: int = 3, slope: float = 0.1) -> None:
        super().__init__()
        self.layer = nn.Linear(2, width)
        self.register_buffer("grid", torch.arange(3) * slope, persistent=False)


class Misleading(nn.Module):
    """A user's network whose attribute has the name, but not the value, of its argument."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.width = 2 * width
        self.layer = nn.Linear(2, 3)


class Remembering(Described, nn.Module):
    def __init__(self, width: int, *, inner: nn.Module | None = None, factor: float = 1.0) -> None:
        super().__init__()
        self.inner = inner


@dataclass
class Settings:
    values: tuple[int, ...] = (1, 2)


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, (2.5, None)], "b": "text", "c": True},
        Settings((3, 4)),
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
    described = describe(Remembering(3, inner=Stored((4, 5), 6, slope=0.3)))
    inner = rebuild(described).inner
    assert (inner.shape, inner.width, inner.slope) == ((4, 5), 6, 0.3)


def test_a_copy_is_described_like_the_original() -> None:
    network = Remembering(3, inner=Stored((4, 5)))
    assert describe(copy.deepcopy(network)) == describe(network)


@pytest.mark.parametrize(
    "network", [Forgetful(4), Forgetful(3, slope=0.2), Misleading(4), nn.Sequential(nn.Linear(2, 2))]
)
def test_a_network_that_cannot_be_described_must_be_passed_in(network: nn.Module) -> None:
    described = describe(Remembering(1, inner=network))
    with pytest.raises(ValueError, match="pass inner=… when loading"):
        rebuild(described)


def test_describing_draws_no_randomness() -> None:
    network = Stored((4, 5))
    before = torch.get_rng_state()
    describe(network)
    assert torch.equal(before, torch.get_rng_state())


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
