"""The map of a latent space: where the images of each class lie in it."""

import dataclasses
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

__all__ = ["PosteriorMeans", "latent_map"]

LEGEND = 20  # classes that a legend has room for


@dataclasses.dataclass
class PosteriorMeans:
    """Means z (N, D) of q(z|x) of a split's images x, and their labels (N,), if there are any."""

    z: Tensor
    labels: Tensor | None
    split: str


def latent_map(latents: PosteriorMeans, class_names: list[str] | None) -> Figure:
    """Plot the posterior means by class; of more than two dimensions their two principal components."""
    points, names = _plane(latents.z)
    figure = Figure(figsize=(7, 5.5), dpi=120, layout="constrained")  # not pyplot's, which would keep it
    axes = figure.subplots()
    marks: dict[str, Any] = {"s": 5, "alpha": 0.6, "linewidths": 0}
    x, y = points.T.numpy()
    if latents.labels is None or class_names is None or len(class_names) > LEGEND:
        axes.scatter(x, y, c="C0" if latents.labels is None else latents.labels.numpy(), **marks)
    else:
        colors = colormaps["tab10" if len(class_names) <= 10 else "tab20"]
        for k, name in enumerate(class_names):
            is_k = (latents.labels == k).numpy()
            axes.scatter(x[is_k], y[is_k], color=colors(k), label=name, **marks)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=3, frameon=False)
    axes.set_title(f"posterior means of {len(points):,} {latents.split} images", fontsize="medium")
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    axes.set_aspect("equal", adjustable="datalim")
    return figure


def _plane(z: Tensor) -> tuple[Tensor, tuple[str, str]]:
    """Return points (N, 2) for ``z`` (N, D), and what their axes are."""
    if z.shape[1] <= 2:
        return F.pad(z, (0, 2 - z.shape[1])), ("$z_0$", "$z_1$")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the algorithm is a randomised one
        _, S, V = torch.pca_lowrank(z.double(), q=min(6, *z.shape), niter=10)
    V = V[:, :2] * V[:, :2].gather(0, V[:, :2].abs().argmax(0, keepdim=True)).sign()  # else either sign is right
    explained = S[:2].square() / ((len(z) - 1) * z.double().var(0).sum())
    first, second = (f"principal component {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(explained))
    return ((z.double() - z.double().mean(0)) @ V).float(), (first, second)
