"""Low-rank adapters (LoRA, Hu et al. 2022): a trained network is fitted to other data by a few weights beside its own.

``peft`` does this for transformers. It does not serve here, as it puts a module around each layer: a checkpoint of this
package could not describe the result, layers that are called with more than x (those between a U-Net's levels) or whose
weight is read (a projection discriminator's) would not be adapted or fail, and it needs transformers and accelerate.
torch's own parametrisations keep each layer, and change what its ``weight`` is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described

__all__ = ["LowRankAdapters", "adapted_names", "adapted_networks", "is_added", "merged_state", "plain_name"]

LAYERS = nn.Linear, nn.Conv2d
ORIGINAL = "parametrizations.weight.original"  # torch's name of an adapted layer's own weight
ADDED = "parametrizations.weight.0."  # and the beginning of those of what is added to it


class LowRankUpdate(nn.Module):
    """W -> W + (alpha / r) B A (Hu et al. 2022, eq. 3): W (out, ...) is taken for a matrix of ``out`` rows.

    Args:
        weight: W.
        rank: r.
        alpha: As above.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        columns = prod(weight.shape[1:])
        self.scale = alpha / rank
        self.down = nn.Parameter(weight.new_empty(rank, columns).normal_(std=columns**-0.5))
        self.up = nn.Parameter(weight.new_zeros(len(weight), rank))  # so that nothing is changed at first

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted weight, of the shape of ``weight``."""
        return weight + self.scale * (self.up @ self.down).view_as(weight)


@dataclass(frozen=True)
class LowRankAdapters(Described):
    """Which layers of a network are adapted and how; all its other weights stay as they are.

    Linear layers and convolutions, those of attention among them, are adapted by default. Layers whose matrix, outputs
    by all else, has no more than ``rank`` rows or columns are left out: nothing would be saved.

    Args:
        rank: The rank r of what is added to a weight. Hu et al.: 1 to 64.
        alpha: What is added counts alpha / r times. None: r, so once.
        parts: The layers, by patterns of their names in which ``*`` stands for anything: ``*attention*``, ``up.*``.
        also: What is trained itself, by such patterns: ``*norm*``, or ``classes*`` for data of other classes.

    Raises:
        ValueError: If a number is not positive; and when a network is adapted, if a pattern names nothing in it.
    """

    rank: int = 8
    alpha: float | None = None
    parts: Sequence[str] = ("*",)
    also: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_count("rank", self.rank, optional=False)
        check_range("alpha", self.alpha, above=0)
        for name in ("parts", "also"):
            patterns = getattr(self, name)
            if isinstance(patterns, str) or not all(isinstance(pattern, str) for pattern in patterns):
                raise ValueError(f"{name}={patterns!r}: it must be a list of patterns, such as ['*attention*']")

    def adapt(self, network: nn.Module) -> None:
        """Add the adapters to a network, and freeze everything else.

        Raises:
            ValueError: If a pattern names nothing, or no layer is large enough.
        """
        layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, LAYERS)}
        chosen = {name: layer for name, layer in layers.items() if _is_one(name, self.parts)}
        adapted = [layer for layer in chosen.values() if self.rank < min(_matrix(layer.weight))]
        self._check(network, list(layers), list(chosen), bool(adapted))
        trained = [p for name, p in network.named_parameters() if _is_one(name, self.also)]
        network.requires_grad_(False)
        alpha = self.rank if self.alpha is None else self.alpha
        for layer in adapted:
            update = LowRankUpdate(layer.weight, self.rank, alpha)
            parametrize.register_parametrization(layer, "weight", update, unsafe=True)  # safe would try it now
        for parameter in trained:
            parameter.requires_grad_(True)

    def trained_names(self, network: nn.Module) -> list[str]:
        """Return the names of what is trained of a network that was adapted, frozen copies of it included."""
        names = [name for name, _ in network.named_parameters()]
        return [name for name in names if is_added(name) or _is_one(plain_name(name), self.also)]

    def _check(self, network: nn.Module, layers: list[str], chosen: list[str], is_any_large: bool) -> None:
        named = {"parts": layers, "also": [name for name, _ in network.named_parameters()]}
        for argument, names in named.items():
            for pattern in getattr(self, argument):
                if not any(_is_one(name, [pattern]) for name in names):
                    few = ", ".join(names[:: max(len(names) // 4, 1)][:4])
                    raise ValueError(
                        f"{argument}={pattern!r} names nothing in {type(network).__name__}, which has {few}"
                    )
        if not is_any_large:
            raise ValueError(
                f"rank={self.rank}: of {len(chosen)} layers, no matrix has more rows and columns than that; give a "
                "smaller rank, or other parts"
            )


def adapted_networks(module: nn.Module) -> Iterator[tuple[str, nn.Module, LowRankAdapters]]:
    """Yield the name of each network with adapters within a module, the network and its adapters."""
    for name, network in module.named_modules():
        if isinstance(adapters := getattr(network, "adapters", None), LowRankAdapters):
            yield name, network, adapters


def adapted_names(module: nn.Module) -> list[str]:
    """Return the names in a module's state of all but what its adapters' base has; none without adapters."""
    found = list(adapted_networks(module))
    of_base = set()
    for prefix, network, adapters in found:
        frozen = {name for name, _ in network.named_parameters()} - set(adapters.trained_names(network))
        of_base |= {f"{prefix}.{name}".lstrip(".") for name in frozen}
    return [name for name in module.state_dict() if name not in of_base] if found else []


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's state with what adapters add put into the weights, as a module without adapters has it.

    torch's own removal of parametrisations would break the copies that were made of a network.
    """
    state = {name: value for name, value in module.state_dict().items() if not is_added(name)}
    for name in [name for name in state if name.endswith(ORIGINAL)]:
        layer: Any = module.get_submodule(name.removesuffix(f".{ORIGINAL}"))
        state[name] = layer.weight.detach()
    return {plain_name(name): value for name, value in state.items()}


def plain_name(name: str) -> str:
    """Return what an adapted layer's own weight is called where there are no adapters; other names stay."""
    return name.replace(ORIGINAL, "weight")


def is_added(name: str) -> bool:
    """Whether a weight of this name is an adapter's."""
    return f".{ADDED}" in f".{name}"


def _is_one(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _matrix(weight: Tensor) -> tuple[int, int]:
    return len(weight), prod(weight.shape[1:])
