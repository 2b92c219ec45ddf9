"""Guidance: sampling goes beyond the model's own estimate of the clean image, away from a worse one."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_generative.checks import check_range
from lit_generative.description import Described, describe
from lit_generative.diffusion.combinations import Combination
from lit_generative.diffusion.denoiser import Denoiser, Estimate
from lit_generative.diffusion.predictions import Prediction
from lit_generative.diffusion.schedules import Schedule, per_image
from lit_generative.nn.conditions import Condition

__all__ = ["AutoGuidance", "ClassifierFree", "Guidance"]

NO_LABELS = "guidance=ClassifierFree: the model has no labels; set num_classes, or take AutoGuidance"


class Guidance(Described, nn.Module, ABC):
    """x_0 = u + scale (c - u), from the model's own estimate c of the clean image and a worse one u.

    The papers combine estimates of eps; as eps is an affine function of x_0, that is the same. A subclass says whose
    estimate u is. It may also combine the two otherwise, change the labels of training, and follow the training.

    Args:
        scale: 0 is u, 1 is c, more goes beyond; not negative.
        interval: Guide only where low < t <= high (Kynkäänniemi et al. 2024), which saves evaluations elsewhere. None:
            at all times. On a GPU, knowing where t is waits for the device.
        combination: How the two are combined. None: as above.

    Attributes:
        follows_training: Whether :meth:`observe` is to be called, for which the training's length must be known.
        needs_condition: Whether it can guide only what is told something of each image.
    """

    follows_training: bool = False
    needs_condition: bool = False

    def __init__(
        self, scale: float, interval: tuple[float, float] | None = None, combination: Combination | None = None
    ) -> None:
        super().__init__()
        check_range("scale", scale, at_least=0, hint="1 is no guidance, 1.5 to 8 are usual")
        if interval is not None and not _rises(interval):
            raise ValueError(f"interval={interval}: it must be two rising times in [0, 1], or None for all of them")
        self.scale, self.interval = scale, interval
        self.combination = combination

    # ---------------------------------------------------------------- what a subclass decides

    @abstractmethod
    def worse(self, network: nn.Module, y: Tensor | None, no_class: float) -> tuple[nn.Module, Tensor | None]:
        """Return the network and the labels (B,) that u is made with, given those of c; ``no_class`` is "none".

        With another condition than classes, labels are what it says, (B, ...), and all of it is "none" where none is.
        """

    def combine(self, better: Tensor, worse: Tensor, scale: float | Tensor) -> Tensor:
        """Return the guided estimate of two estimates of x_0, (B, ...); ``scale`` is broadcast against them.

        It is not asked if there is a ``combination``.
        """
        return torch.lerp(worse, better, scale)

    def check_condition(self, condition: Condition | None) -> None:
        """Refuse a model that is told nothing, if that cannot be guided so. It calls this when it is made."""
        if self.needs_condition and condition is None:
            raise ValueError(NO_LABELS)

    def prepare(self, network: nn.Module, num_classes: int | None) -> None:
        """Check, and take, what is needed of the model that is to be guided. It calls this when it is made."""

    def check(self, schedule: Schedule, prediction: Prediction, image_shape: tuple[int, ...]) -> None:
        """Refuse a model that cannot be guided so. It calls this when it is made."""

    def training_labels(self, y: Tensor, no_class: float) -> Tensor:
        """Return the labels to train with, (B, ...), for a batch of labels ``y``."""
        return y

    def observe(self, network: nn.Module, share: float, images_seen: int) -> None:
        """Take note of the network at a validation, after a share of the training in (0, 1]."""

    @property
    def is_active(self) -> bool:
        """Whether samples are guided at present."""
        return self.scale != 1

    @property
    def stamp(self) -> dict[str, Any]:
        """What should accompany a number that was measured with it, as plain data."""
        return {"guidance": describe(self)}

    # ---------------------------------------------------------------- the same for all

    def wrap(self, denoise: Denoiser, worse: Denoiser) -> Denoiser:
        """Return the guided denoiser. Its v, if there is one, is that of ``denoise`` (Dhariwal & Nichol 2021)."""
        combine = self.combination.begin() if self.combination else lambda c, u, scale, t: self.combine(c, u, scale)

        def guided(x_t: Tensor, t: Tensor) -> Estimate:
            scale: float | Tensor = self.scale
            if self.interval is not None:
                is_guided = self._is_guided(t)
                if not is_guided.any():
                    return denoise(x_t, t)
                scale = per_image(torch.where(is_guided, self.scale, 1.0).to(x_t.dtype), x_t)
            (u, _), (c, v) = worse(x_t, t), denoise(x_t, t)
            return Estimate(combine(c, u, scale, t), v)

        return denoise if self.scale == 1 else guided

    def evaluations(self, times: Sequence[float]) -> int:
        """Return at how many of ``times`` the worse denoiser is asked."""
        return int(self._is_guided(torch.tensor(times, dtype=torch.float32)).sum()) if self.scale != 1 else 0

    def _is_guided(self, t: Tensor) -> Tensor:
        low, high = self.interval or (0.0, 1.0)
        return (low < t) & (t <= high)


class ClassifierFree(Guidance):
    """Away from the estimate without a label (Ho & Salimans 2022, eq. 6 with w = scale - 1).

    For the network to know images without one, some of the training labels are replaced by "none". So are other
    conditions.

    Args:
        scale, interval, combination: See :class:`Guidance`.
        label_dropout: The share of training labels that are left out, in (0, 1).
    """

    needs_condition = True

    def __init__(
        self,
        scale: float,
        interval: tuple[float, float] | None = None,
        label_dropout: float = 0.1,
        combination: Combination | None = None,
    ) -> None:
        super().__init__(scale, interval, combination)
        check_range("label_dropout", label_dropout, above=0, below=1, hint="guidance needs some; theirs is 0.1 to 0.2")
        self.label_dropout = label_dropout

    def worse(self, network: nn.Module, y: Tensor | None, no_class: float) -> tuple[nn.Module, Tensor | None]:
        """Return the network itself and no classes, or no other condition."""
        if y is None:
            raise ValueError(NO_LABELS)
        return network, torch.full_like(y, no_class)

    def training_labels(self, y: Tensor, no_class: float) -> Tensor:
        """Leave some out."""
        is_kept = torch.rand(len(y), device=y.device) >= self.label_dropout
        return y.where(is_kept.view(-1, *[1] * (y.ndim - 1)), no_class)


class AutoGuidance(Guidance):
    """Away from the estimate of the network's own former state (Karras et al. 2024, eq. 3).

    Before the state is kept, nothing is guided.

    Args:
        scale, interval, combination: See :class:`Guidance`.
        keep_at: The share of the training, in (0, 1], after which the network's state (its average, with EMA) is kept,
            at the next validation. A much better or worse guide helps less.
        least_images: Before so many training images were seen, nothing is kept: in a short training the state after a
            small share of it is so much worse that guidance by it makes samples alike.

    Attributes:
        guide: The network in that state.
        kept_at: The images seen by then; 0: not yet.
    """

    follows_training = True
    kept_at: Tensor

    def __init__(
        self,
        scale: float,
        interval: tuple[float, float] | None = None,
        keep_at: float = 0.1,
        combination: Combination | None = None,
        least_images: int = 0,
    ) -> None:
        super().__init__(scale, interval, combination)
        check_range("keep_at", keep_at, above=0, at_most=1, hint="it is a share of the training, such as 0.1")
        check_range("least_images", least_images, at_least=0)
        self.keep_at, self.least_images = keep_at, least_images
        self.guide: nn.Module | None = None
        self.register_buffer("kept_at", torch.zeros((), dtype=torch.long))

    def prepare(self, network: nn.Module, num_classes: int | None) -> None:
        """Make room for the guide, so that it has a place in checkpoints."""
        self.guide = copy.deepcopy(network).requires_grad_(False)

    def observe(self, network: nn.Module, share: float, images_seen: int) -> None:
        """Keep the network's state, if it is time."""
        is_time = share >= self.keep_at and images_seen >= self.least_images
        if self.guide is not None and not self.kept_at and is_time:
            self.guide.load_state_dict(network.state_dict())
            self.kept_at.fill_(images_seen)

    def begin_anew(self, model: Any) -> None:
        """Forget the guide, which is of another training."""
        assert self.guide is not None
        self.guide.load_state_dict(model.network.state_dict())
        self.kept_at.zero_()

    def worse(self, network: nn.Module, y: Tensor | None, no_class: float) -> tuple[nn.Module, Tensor | None]:
        """Return the guide and the same labels."""
        assert self.guide is not None  # or nothing was kept
        return self.guide, y

    @property
    def is_active(self) -> bool:
        """Whether there is a guide, and a scale."""
        return super().is_active and bool(self.kept_at)

    @property
    def stamp(self) -> dict[str, Any]:
        """With the guide's age."""
        return super().stamp | {"guide": f"itself after {int(self.kept_at):,} images"}


def _rises(interval: Any) -> bool:
    try:
        low, high = interval
        return bool(0 <= low < high <= 1)
    except (TypeError, ValueError):
        return False
