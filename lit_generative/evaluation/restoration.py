"""How near images that were made from a condition come to the ones that it is of, beside what needs no model."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lit_generative.contracts import ImageData, Split
from lit_generative.core import GenerativeModule
from lit_generative.evaluation.extractors import Extractor
from lit_generative.evaluation.metrics import SampleQuality
from lit_generative.nn.image_conditions import ImageCondition
from lit_generative.pictures import to_uint8
from lit_generative.processes import gather, rank_and_world

__all__ = ["Given", "Restoration", "psnr"]


@dataclass
class Given:
    """What samples are told: the conditions (n, ...) of real images (n, C, H, W), repeated if these are too few."""

    y: Tensor
    images: Tensor

    @classmethod
    def of(cls, model: GenerativeModule, data: ImageData, split: Split, n: int, seed: int) -> "Given | None":
        """Return it for a model that is told something else than classes; None for others.

        Every process has to ask for it, and gets the same.
        """
        if model.condition is None or model.num_classes is not None:
            return None
        torch.manual_seed(seed)  # a condition may be drawn
        told = [(model.condition.of(batch), batch["image"]) for batch in data.loader(split, limit=n)]
        y, images = (gather(torch.cat(part).to(model.device)).cpu() for part in zip(*told, strict=True))
        turns = torch.arange(n) % len(images)
        return cls(y[turns], images[turns])


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Return 10 log10(MAX^2 / MSE) of each pair of images (B, C, H, W) in [-1, 1], (B,), in dB, at most 100."""
    mse = ((images.double() - others.double()) / 2).square().flatten(1).mean(1)
    return -10 * mse.clamp(min=1e-10).log10()


@dataclass
class Restoration:
    """Collects the peak signal-to-noise ratio of samples, and of the condition's baseline with its distances.

    Attributes:
        given: Conditions and images of all samples.
        condition: What they are conditions of.
        extractor: By which the baseline is compared, as the samples are.
        quality: That of the baseline; it has seen the real images.
    """

    given: Given
    condition: ImageCondition
    extractor: Extractor
    quality: SampleQuality
    own: list[Tensor] = field(default_factory=list)
    others: list[Tensor] = field(default_factory=list)

    def update(self, images: Tensor, start: int) -> None:
        """Add samples (B, C, H, W), 256 levels in [-1, 1], which are those from ``start`` on."""
        stop = start + len(images)
        real = self.given.images[start:stop].to(images.device)
        self.own.append(psnr(images, real))
        baseline = self.condition.baseline(self.given.y[start:stop].to(images.device))
        if baseline is None:
            return
        baseline = to_uint8(baseline).float() / 127.5 - 1
        self.others.append(psnr(baseline, real))
        parts = baseline.split(self.extractor.max_batch)
        self.quality.update(torch.cat([self.extractor(part) for part in parts]), real=False)

    def compute(self) -> dict[str, float]:
        """Return ``psnr`` in dB, and that and the distances of the baseline under its name; every process has to."""
        found = {"psnr": _mean(self.own)}
        if not self.others:
            return found
        name, names = self.condition.baseline_name, self.extractor.metric_names
        distances = {names.get(key, key): value for key, value in self.quality.compute().items() if "distance" in key}
        found[f"{name}_psnr"] = _mean(self.others)
        return found | {f"{name}_{key}": value.item() for key, value in distances.items()}


def _mean(parts: list[Tensor]) -> float:
    assert rank_and_world()[1] > 1 or parts
    return float(gather(torch.cat(parts)).mean())
