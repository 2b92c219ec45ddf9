"""The latent space of one model, in pictures and numbers: whatever the protocols that it meets have to show."""

import dataclasses
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lit_generative.contracts import (
    HasLatentSpace,
    ImageData,
    Interpolates,
    InterpolatesSamples,
    Inverts,
    Reconstructs,
    Split,
    Trajectories,
)
from lit_generative.core import GenerativeModule
from lit_generative.evaluation.linear_probe import fit_linear_probe
from lit_generative.latent_space.map import PosteriorMeans, latent_map
from lit_generative.latent_space.selection import LatentRequest, Selection
from lit_generative.pictures import are_points, evenly_spaced, film, picture

__all__ = ["LatentSpace", "explore"]

ACTIVE = 0.01  # least variance of a dimension's posterior mean that counts as active (Burda et al. 2016, section 5.2)


@dataclasses.dataclass
class LatentSpace:
    """What was found.

    Attributes:
        pictures: Images (C, H, W) in [-1, 1], by name.
        figures: Plots, by name.
        numbers: What was measured, by name, as it is printed.
        latents: The images' latents, if they are vectors.
    """

    pictures: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    figures: dict[str, Figure] = dataclasses.field(default_factory=dict)
    numbers: dict[str, str] = dataclasses.field(default_factory=dict)
    latents: PosteriorMeans | None = None


def explore(model: GenerativeModule, data: ImageData | None, request: LatentRequest) -> LatentSpace:
    """Look at a model, one's own like those of this package, by the protocols of :mod:`lit_generative.contracts`.

    ================================ =======================================================================
    :class:`Reconstructs`            ``reconstructions``
    :class:`HasLatentSpace`          ``traversals``, ``interpolations_linear`` and ``…_spherical``, ``manifold``,
                                     ``map``, the table of latents, active units, a linear probe's accuracy
    :class:`Interpolates`            ``interpolations_of_images``
    :class:`Inverts`                 ``encoded_and_decoded``, and how well that is the image again
    :class:`InterpolatesSamples`     ``interpolations``, or ``interpolations_of_noise`` beside those of images
    :class:`Trajectories`            ``denoising``
    none that shows new images       ``samples``
    ================================ =======================================================================

    Args:
        model: In evaluation mode.
        data: The images that it was trained on; not all models need any.
        request: What is to be shown.

    Raises:
        ValueError: If ``request.labels`` has a class that is not there, or images are needed and not given.
    """
    selection, space = Selection(model, data, request), LatentSpace()
    if isinstance(model, Reconstructs | HasLatentSpace | Interpolates | Inverts):
        _show_images(model, selection, space)
    elif request.labels and model.num_classes is None:
        raise ValueError(f"labels={request.labels}: the model is unconditional, leave them out")
    if isinstance(model, HasLatentSpace):
        _show_latents(model, selection, space)
    _show_samples(model, selection, space)
    return space


def _show_images(model: GenerativeModule, selection: Selection, space: LatentSpace) -> None:
    """Show what comes back of real images, and what is between them."""
    x_0, x_1, y = selection.pairs
    steps = selection.request.steps
    if isinstance(model, Reconstructs):
        space.pictures["reconstructions"] = _rows([x_0, model.reconstruct(x_0, y)], by_column=True)
    elif isinstance(model, Inverts):
        x_T = model.encode(x_0, y)
        decoded = model.decode(x_T, y)
        noise = [x_T / x_T.std()] if x_T.shape == x_0.shape else []  # that of latents is no picture
        space.pictures["encoded_and_decoded"] = _rows([x_0, *noise, decoded], by_column=True)
        error = (decoded - x_0).square().mean().sqrt().item()
        space.numbers["encoded and decoded: root mean square error, of a range of 2"] = f"{error:.2g}"
    if isinstance(model, HasLatentSpace):
        for name, is_spherical in {"linear": False, "spherical": True}.items():
            path = model.interpolate(x_0, x_1, steps, y, is_spherical=is_spherical)
            space.pictures[f"interpolations_{name}"] = _rows([x_0, *path, x_1])
    elif isinstance(model, Interpolates):
        space.pictures["interpolations_of_images"] = _rows([x_0, *model.interpolate(x_0, x_1, steps, y), x_1])


def _show_samples(model: GenerativeModule, selection: Selection, space: LatentSpace) -> None:
    """Show new images: how they come about, what is between them, or the images alone."""
    n, steps, y = selection.request.num_images, selection.request.steps, selection.classes()
    if isinstance(model, Trajectories):
        way = model.trajectory(n, y, generator=selection.generator())
        space.pictures["denoising"] = film(evenly_spaced(way, steps))
    if isinstance(model, InterpolatesSamples):
        name = "interpolations_of_noise" if isinstance(model, Interpolates) else "interpolations"
        space.pictures[name] = _rows(model.interpolate_samples(n, steps, y, generator=selection.generator()))
    if not isinstance(model, Trajectories | InterpolatesSamples | HasLatentSpace):
        space.pictures["samples"] = picture(model.sample(n, y, generator=selection.generator()))


def _show_latents(model: HasLatentSpace, selection: Selection, space: LatentSpace) -> None:
    """Show what the dimensions of the latents do, those that vary most first, and where the images are in them."""
    found = _encode(model, selection, selection.request.split)
    variances = found.z.var(0)
    order = variances.argsort(descending=True).tolist()
    x_0, _, y = selection.pairs
    y = None if y is None else y[:1]
    dimensions = order[: selection.request.num_images]
    traversed = model.traverse(x_0[:1], y, dimensions=dimensions, steps=selection.request.steps)
    space.pictures["traversals"] = _rows(traversed.transpose(0, 1))
    if len(order) > 1:
        grid = model.latent_grid(16, y, dimensions=(order[0], order[1]))
        space.pictures["manifold"] = picture(grid.flatten(0, 1), grid.shape[1])
    space.numbers["active units"] = f"{int((variances > ACTIVE).sum())} of {len(order)}"
    space.numbers |= _probe(model, selection, found)
    space.figures["map"] = latent_map(found, None if selection.data is None else selection.data.class_names)
    space.latents = found


def _encode(model: HasLatentSpace, selection: Selection, split: Split) -> PosteriorMeans:
    z, labels = [], []
    for batch in selection.batches(split, selection.request.max_images):
        z.append(model.posterior_means(*selection.model.unpack(batch)).cpu())
        labels += [batch["label"]] if "label" in batch else []
    return PosteriorMeans(torch.cat(z), torch.cat(labels) if labels else None, split)


def _probe(model: HasLatentSpace, selection: Selection, found: PosteriorMeans) -> dict[str, str]:
    """Return the accuracy of a linear probe fitted to training images' latents, in words, if there are classes."""
    if found.labels is None:
        return {}
    train = _encode(model, selection, "train")
    test = found if found.split == "test" else _encode(model, selection, "test")
    assert train.labels is not None
    assert test.labels is not None
    probe = fit_linear_probe(train.z, train.labels)
    accuracy, chance = probe.accuracy(test.z, test.labels), probe.chance(test.labels)
    return {f"linear probe's accuracy on {len(test.z):,} test images": f"{accuracy:.3f} (chance: {chance:.3f})"}


def _rows(columns: Sequence[Tensor] | Tensor, by_column: bool = False) -> Tensor:
    """Draw ``columns``, each of n images (n, C, H, W), as n rows; ``by_column``: each as a row; points: all at once."""
    stacked = torch.stack(list(columns)).clamp(-1, 1)
    stacked = stacked if by_column else stacked.transpose(0, 1)
    if are_points(stacked[0]):
        return picture(stacked.flatten(0, 1))
    return picture(stacked.flatten(0, 1), stacked.shape[1])
