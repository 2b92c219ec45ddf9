"""Guidance by another network, a smaller one of a run of its own."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_generative.core import GenerativeModule
from lit_generative.description import describe
from lit_generative.diffusion.combinations import Combination
from lit_generative.diffusion.guidance import Guidance
from lit_generative.diffusion.predictions import Prediction
from lit_generative.diffusion.schedules import Schedule
from lit_generative.nn.conditions import Condition, labels_of

__all__ = ["CheckpointGuidance"]


class CheckpointGuidance(Guidance):
    """Away from the estimate of a smaller network that was trained for less long (Karras et al. 2024, section 4).

    That is better than the network's own former state (:class:`~lit_generative.diffusion.guidance.AutoGuidance`) where
    the two make errors of one kind, but the smaller one larger ones. A checkpoint of the guided model holds the guide,
    and needs its file no more.

    Args:
        guide: The checkpoint of a diffusion model of the same schedule and prediction, whose network is taken; or such
            a network.
        scale, interval, combination: See :class:`~lit_generative.diffusion.guidance.Guidance`.

    Attributes:
        images_seen: Training images that the guide has seen; 0: not known.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint of a diffusion model, or of another schedule, prediction or classes.
    """

    images_seen: Tensor

    def __init__(
        self,
        guide: nn.Module | str | Path,
        scale: float,
        interval: tuple[float, float] | None = None,
        combination: Combination | None = None,
    ) -> None:
        super().__init__(scale, interval, combination)
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.long))
        self._origin: dict[str, Any] | None = None
        if isinstance(guide, str | Path):
            guide = self._open(guide)
            self._init_args = self._init_args | {"guide": describe(guide)}
        if not isinstance(guide, nn.Module):
            raise ValueError(f"guide={guide!r}: it must be the checkpoint of a diffusion model, or a network")
        self.guide = guide.requires_grad_(False).eval()

    def _open(self, path: str | Path) -> nn.Module:
        model: Any = GenerativeModule.load_from_checkpoint(path)
        if model.family != "DDPM":
            raise ValueError(
                f"guide={str(path)!r} is a {type(model).__name__}; take the checkpoint of a diffusion model"
            )
        self.images_seen.fill_(model.images_seen)
        self._origin = {"schedule": describe(model.schedule), "prediction": describe(model.prediction)}
        self._origin["image_shape"] = tuple(model.state_shape)
        return model.network

    def prepare(self, network: nn.Module, num_classes: int | None) -> None:
        """Refuse a guide of other classes."""
        if (own := getattr(self.guide, "num_classes", None)) not in (None, num_classes):
            raise ValueError(f"guide: its network has num_classes={own}, but the model {num_classes}; make them equal")

    def check_condition(self, condition: Condition | None) -> None:
        """Refuse a guide that is told something else; classes are compared by :meth:`prepare`."""
        own = getattr(self.guide, "condition", None)
        if own is not None and labels_of(own) is None and describe(own) != describe(condition):
            raise ValueError(f"guide: its network has condition={describe(own)}, the model has {describe(condition)}")

    def check(self, schedule: Schedule, prediction: Prediction, image_shape: tuple[int, ...]) -> None:
        """Refuse a guide that was trained otherwise."""
        own = {"schedule": describe(schedule), "prediction": describe(prediction), "image_shape": tuple(image_shape)}
        for name, value in (self._origin or {}).items():
            if value != own[name]:
                raise ValueError(
                    f"guide: it was trained with {name}={value}, the model has {own[name]}; make them equal"
                )

    def worse(self, network: nn.Module, y: Tensor | None, no_class: float) -> tuple[nn.Module, Tensor | None]:
        """Return the guide, and the same labels if it takes any."""
        is_told = any(getattr(self.guide, name, None) is not None for name in ("num_classes", "condition"))
        return self.guide, y if is_told else None

    @property
    def stamp(self) -> dict[str, Any]:
        """With the guide's age."""
        return super().stamp | {"guide": f"{type(self.guide).__name__} after {int(self.images_seen):,} images"}
