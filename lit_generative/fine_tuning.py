"""A new training from the weights of an old one: what fits is taken, by name and shape."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_generative.checkpoints import KEY, check_weights, read_checkpoint, unpack
from lit_generative.contracts import BeginsAnew
from lit_generative.core import GenerativeModule
from lit_generative.description import describe
from lit_generative.evaluation.identity import weights_digest
from lit_generative.finite import check_finite_weights
from lit_generative.nn.adapters import adapted_networks, is_added, merged_state, plain_name

__all__ = ["Taken", "take_weights"]

MOST_LINES = 8  # of each kind in what is printed


@dataclass(frozen=True)
class Taken:
    """What a model has taken from a checkpoint.

    Attributes:
        source: What the weights are from, in words.
        taken: The names of the tensors that were taken as they are.
        new: Those that the checkpoint has not, each with the reason.
        left: Those of the checkpoint that the model has not, or in another shape, each with the reason.
        otherwise: The arguments that model and checkpoint do not share, such as the prediction, each with both values.
        parameters: How many of the model's parameters were taken, and how many there are; adapters are not counted.
        adapters: How many parameters adapters add.
    """

    source: str
    taken: list[str] = field(default_factory=list)
    new: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    otherwise: dict[str, str] = field(default_factory=dict)
    parameters: tuple[int, int] = (0, 0)
    adapters: int = 0

    def __str__(self) -> str:
        """Return a block of lines for people."""
        taken, total = self.parameters
        lines = [f"weights from {self.source}", f"  taken: {taken:,} of {total:,} parameters"]
        lines += [f"  added: {self.adapters:,} parameters of adapters, 0 at first"] if self.adapters else []
        for title in ("new", "left", "otherwise"):
            entries = [f"{name}: {reason}" for name, reason in getattr(self, title).items()]
            more = [f"and {len(entries) - MOST_LINES} more"] if len(entries) > MOST_LINES else []
            heads = [f"{title}:"] + [""] * MOST_LINES
            lines += [
                f"  {head:{len(title) + 1}} {entry}"
                for head, entry in zip(heads, entries[:MOST_LINES] + more, strict=False)
            ]
        return "\n".join(lines)


def take_weights(model: GenerativeModule, path: str | Path) -> Taken:
    """Give a model that is to be trained the weights of a checkpoint, as far as they fit.

    The weights are those that the checkpoint's model samples with: the average, if there was one. A tensor is taken if
    the model has one of its name and shape. Vectors of another number of classes begin as the mean of the old ones: the
    network is then told of a class in the middle of those it knows, rather than of none (zeros) or of noise, and
    gradients tell them apart. A vector that means "no class" stays itself. What belongs to the old training (the guide
    of :class:`~lit_generative.diffusion.AutoGuidance`, the probability of an augmentation, a fitted prior) is not
    taken. Adapters of the checkpoint's model are merged into its weights first.

    Args:
        model: Has its optimizer, schedule and counters still before it.
        path: A checkpoint of this package, of any model and any data.

    Returns:
        What was taken, what is new and what was left; ``print`` shows it.

    Raises:
        FileNotFoundError: If there is no such file.
        FloatingPointError: If a weight is not finite.
        ValueError: If the file is refused, nothing fits, or what does not fit is frozen beside adapters.
    """
    checkpoint = read_checkpoint(path, map_location="cpu")
    contents, state = checkpoint[KEY], _plain_state(checkpoint, path)
    kind = contents["model"]["class_path"].rpartition(".")[2]
    plan = _Plan(model, state, contents["model"]["init_args"].get("num_classes"))
    taken = sum(p.numel() for name, p in plan.parameters.items() if name in plan.fitting)
    if not taken:
        raise ValueError(
            f"checkpoint {path}: none of its weights, those of a {kind}, fits this {type(model).__name__} by name and "
            "shape; take a checkpoint of the same kind of model and networks"
        )
    plan.check_trained()
    plan.carry_out()
    check_finite_weights(model, path)
    seen, weights = contents["state"]["images_seen"], contents["state"]["weights"]
    digest = weights_digest(state)
    model.origin = {"checkpoint": str(path), "weights_sha256": digest, "weights": weights, "images_seen": seen}
    return Taken(
        source=f"{path}: {kind} after {seen:,} images, weights {weights}",
        taken=sorted(plan.fitting),
        new=plan.new,
        left=plan.left,
        otherwise=_differing(contents["model"]["init_args"], describe(model)["init_args"], model),
        parameters=(taken, sum(p.numel() for p in plan.parameters.values())),
        adapters=sum(p.numel() for name, p in model.named_parameters() if is_added(name) and p.requires_grad),
    )


def _plain_state(checkpoint: dict[str, Any], path: str | Path) -> dict[str, Tensor]:
    """Return a checkpoint's weights as of a model without adapters."""
    state = checkpoint["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"checkpoint {path} is damaged: its weights are not tensors by name")
    if not any(map(is_added, state)):
        return state
    model = unpack(checkpoint, GenerativeModule, {}, source=str(path))
    check_weights(model, state)
    model.load_state_dict(state)
    return merged_state(model)


class _Plan:
    """What a model takes of a state, found before anything is changed.

    Attributes:
        parameters: The model's, but for adapters and what belongs to a run, by the names in its state.
        fitting: What is taken as it is, by these names.
        made: What is made of tensors that do not fit.
        new: The model's other tensors, as they are called without adapters, and why they are not taken.
        left: What of the state is not taken, with its shape.
    """

    def __init__(self, model: GenerativeModule, state: dict[str, Tensor], old_classes: Any) -> None:
        self.model, self.old_classes = model, old_classes
        self.of_run = tuple(f"{name}." for name, part in model.named_modules() if name and isinstance(part, BeginsAnew))
        self.parameters = {name: p for name, p in model.named_parameters() if self._counts(name)}
        self.fitting: dict[str, Tensor] = {}
        self.made: dict[str, Tensor] = {}
        self.new: dict[str, str] = {}
        for name, value in model.state_dict().items():
            if self._counts(name):
                self._find(name, value, state.get(plain_name(name)))
        self.left = self._left(state)

    def _counts(self, name: str) -> bool:
        return not is_added(name) and not name.startswith(self.of_run)

    def _find(self, name: str, value: Tensor, old: Tensor | None) -> None:
        """Decide what becomes of one tensor of the model."""
        shape = f"{tuple(value.shape)}"
        if old is not None and old.shape == value.shape:
            self.fitting[name] = old
        elif old is not None and (vectors := self._of_classes(name, old, value)) is not None:
            self.made[name] = vectors
            self.new[plain_name(name)] = f"{shape}, each class the mean of the old ones"
        else:
            self.new[plain_name(name)] = shape + ("" if old is None else f", the file has {tuple(old.shape)}")

    def _left(self, state: dict[str, Tensor]) -> dict[str, str]:
        """Return what is not taken; a part that the model has no place for at all is named once."""
        used = {plain_name(name) for name in (*self.fitting, *self.made)}
        children = {name for name, _ in self.model.named_children()}
        left: dict[str, str] = {}
        for name in (name for name in state if name not in used and self._counts(name)):
            part, dot, _ = name.partition(".")
            is_whole = bool(dot) and part not in children
            left[part if is_whole else name] = "all of it" if is_whole else f"{tuple(state[name].shape)}"
        return left

    def _of_classes(self, name: str, old: Tensor, new: Tensor) -> Tensor | None:
        """Return vectors of another number of classes, (K, dim); None of what is no such thing."""
        classes, layer = self.model.num_classes, self.model.get_submodule(name.rpartition(".")[0])
        if not isinstance(layer, nn.Embedding) or not isinstance(self.old_classes, int) or classes is None:
            return None
        others = len(old) - self.old_classes  # 1 where a vector means "none"
        if old.shape[1:] != new.shape[1:] or others not in (0, 1) or len(new) - classes != others:
            return None
        mean = old[: self.old_classes].mean(0, keepdim=True)
        return torch.cat([mean.expand(classes, -1), old[self.old_classes :]])

    def check_trained(self) -> None:
        """Refuse to leave as it is, beside adapters, what was never trained.

        Raises:
            ValueError: It names what has to be trained.
        """
        for prefix, network, _ in adapted_networks(self.model):
            names = {plain_name(name) for name, p in network.named_parameters() if not p.requires_grad}
            if parts := sorted(name for name in names if f"{prefix}.{name}" in self.new):
                raise ValueError(
                    f"{prefix}.adapters leave {', '.join(parts[:4])} as they are, but the checkpoint does not have "
                    f"them: train them too, by --model.{prefix}.adapters.also '{json.dumps(parts)}'"
                )

    @torch.no_grad()
    def carry_out(self) -> None:
        """Copy, and let what belongs to a run begin anew."""
        own = self.model.state_dict()
        for name, value in (self.fitting | self.made).items():
            own[name].copy_(value)
        for part in self.model.modules():
            if isinstance(part, BeginsAnew):
                part.begin_anew(self.model)


def _differing(before: dict[str, Any], now: dict[str, Any], model: nn.Module) -> dict[str, str]:
    """Return the arguments that two models do not share, beside networks, classes, sizes and the optimisation."""
    aside = {"num_classes", "image_shape", "guidance", "sampler", *(name for name, _ in model.named_children())}
    pairs = {name: (before.get(name), now.get(name)) for name in {**before, **now}}
    return {
        name: f"{_short(old)} in the file, {_short(new)} here"
        for name, (old, new) in pairs.items()
        if old != new and name not in aside and not name.endswith(("optimizer", "lr_scheduler"))
    }


def _short(value: Any) -> str:
    return (
        str(value["class_path"]).rpartition(".")[2] if isinstance(value, dict) and "class_path" in value else f"{value}"
    )
