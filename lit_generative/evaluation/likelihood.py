"""The likelihood of images, estimated by models that define one: over a data set, with standard errors."""

import numpy as np
import torch
from torch import Tensor

from lit_generative.contracts import ImageData, Split
from lit_generative.core import GenerativeModule
from lit_generative.eight_bit import bits_per_dim
from lit_generative.evaluation.progress import counter
from lit_generative.processes import broadcast, gather, rank_and_world
from lit_generative.sampling import inference

__all__ = ["defines_likelihoods", "estimate_likelihoods", "mean_likelihoods"]


def defines_likelihoods(model: GenerativeModule) -> bool:
    """Whether the model's class has likelihoods, be it that of some images they are {}."""
    return type(model).likelihoods is not GenerativeModule.likelihoods


def estimate_likelihoods(
    model: GenerativeModule,
    data: ImageData,
    split: Split,
    num_images: int,
    *,
    evaluations: int,
    batch_size: int = 100,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Estimate -log P of images; every process of a distributed run has to call it.

    Args:
        model: See :meth:`GenerativeModule.likelihoods`. It is asked in evaluation mode, in the precision that samples
            are drawn with.
        data: Where the images come from.
        split: Which of them.
        num_images: How many, always the same ones.
        evaluations: About how many times an estimate may ask the network about an image.
        batch_size: Images a batch and process.
        seed: Decides the noise, of each batch and process another one.

    Returns:
        Nats by the name of the estimate, each (num_images,), float64, of all processes; {} if the model defines none.

    Raises:
        ValueError: If an estimate is not one number an image.
    """
    rank, world = rank_and_world()
    found: list[dict[str, Tensor]] = []
    with counter("likelihoods", num_images, progress=True) as bar:
        for i, batch in enumerate(data.loader(split, batch_size=batch_size, limit=num_images)):
            x, y = model.unpack({name: value.to(model.device) for name, value in batch.items()})
            if len(x):  # of fewer images than processes, some get none
                noise = int(np.random.SeedSequence([seed, i * world + rank]).generate_state(1)[0])
                found.append(_estimate(model, x, y, evaluations, torch.Generator(model.device).manual_seed(noise)))
                bar.update(len(x))
    names = broadcast(list(found[0]) if found else [])
    columns = [torch.stack([batch[name] for name in names], dim=1) for batch in found if names]
    rows = gather(torch.cat([*columns, torch.zeros(0, len(names), device=model.device)]))
    return dict(zip(names, rows.cpu().double().T, strict=True))


def _estimate(
    model: GenerativeModule, x: Tensor, y: Tensor | None, evaluations: int, generator: torch.Generator
) -> dict[str, Tensor]:
    with inference(model, generator):
        found = model.likelihoods(x, y, evaluations=evaluations, generator=generator)
    for name, nats in found.items():
        if nats.shape != (len(x),):
            raise ValueError(
                f"{type(model).__name__}.likelihoods gives {name!r} in the shape {tuple(nats.shape)} for {len(x)} "
                f"images; it must be one number an image, ({len(x)},)"
            )
    return {name: nats.detach().float() for name, nats in found.items()}


def mean_likelihoods(likelihoods: dict[str, Tensor], num_dims: int) -> dict[str, float]:
    """Return mean and standard error of each estimate, by its name and unit: ``bound_nats``, ``bound_nats_stderr``, ...

    Args:
        likelihoods: -log P in nats by name, (N,).
        num_dims: C H W.
    """
    metrics: dict[str, float] = {}
    for name, nats in likelihoods.items():
        moments = torch.stack([nats.mean(), nats.std() / len(nats) ** 0.5])
        for unit, values in {"nats": moments, "bits_per_dim": bits_per_dim(moments, num_dims)}.items():
            metrics[f"{name}_{unit}"], metrics[f"{name}_{unit}_stderr"] = values.tolist()
    return metrics
