"""The latent space of one model, in pictures and numbers: :func:`explore`, with one implementation for each family."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lit_generative.core import GenerativeModule
from lit_generative.data import AnyData
from lit_generative.data.module import Split
from lit_generative.diffusion.module import DDPM
from lit_generative.evaluation.linear_probe import fit_linear_probe
from lit_generative.gan.module import GAN
from lit_generative.latent_space.map import Latents, latent_map
from lit_generative.pictures import are_points, evenly_spaced, film, picture
from lit_generative.vae.latent import ActiveUnits, LatentModel

__all__ = ["Request", "Space", "explore"]

CANDIDATES = 500  # images among which those that are shown are chosen


@dataclasses.dataclass
class Request:
    """What is to be shown.

    Attributes:
        num_images: Rows of each picture.
        steps: Images of a path.
        seed: Decides which images and noises are shown.
        labels: Classes of the rows, repeated in turn; None: all of them.
        split: The images that are shown and tabulated.
        max_images: At most so many images of a split are encoded for tables and numbers.
    """

    num_images: int = 8
    steps: int = 10
    seed: int = 0
    labels: list[int] | None = None
    split: Split = "test"
    max_images: int = 10_000


@dataclasses.dataclass
class Space:
    """What was found.

    Attributes:
        pictures: Images (C, H, W) in [-1, 1], by name.
        figures: Plots, by name.
        numbers: What was measured, by name, as it is printed.
        latents: The images' latents, where an image has any.
    """

    pictures: dict[str, Tensor]
    figures: dict[str, Figure] = dataclasses.field(default_factory=dict)
    numbers: dict[str, str] = dataclasses.field(default_factory=dict)
    latents: Latents | None = None


@functools.singledispatch
def explore(model: GenerativeModule, data: AnyData | None, request: Request) -> Space:
    """Look at the latents of ``model``; a subclass is looked at as its parent is.

    Of a model of no known family there are samples and, if it has ``reconstruct(x, y)``, reconstructions. For one of
    one's own, ``explore.register`` takes another function of the same arguments.

    Args:
        model: What to look at, in evaluation mode.
        data: The images that it was trained on; not all models need any.
        request: What is to be shown.

    Raises:
        ValueError: If ``request.labels`` has a class that is not there, or the images are needed and not given.
    """
    y = _asked(model, request)
    pictures = {"samples": picture(model.sample(request.num_images, y, generator=_generator(model, request)))}
    if callable(reconstruct := getattr(model, "reconstruct", None)):
        x, labels = _chosen(model, data, request, request.num_images)
        pictures["reconstructions"] = _rows([x, reconstruct(x, _condition(model, labels))], by_column=True)
    return Space(pictures)


@explore.register
def _(model: GAN, data: AnyData | None, request: Request) -> Space:
    if request.labels and model.num_classes is None:
        raise ValueError(f"labels={request.labels}: the model is unconditional, leave them out")
    path = model.interpolate_samples(
        request.num_images, request.steps, _asked(model, request), generator=_generator(model, request)
    )
    return Space({"interpolations": _rows(path)})


@explore.register
def _(model: DDPM, data: AnyData | None, request: Request) -> Space:
    n, y = request.num_images, _asked(model, request)
    way = model.trajectory(n, y, generator=_generator(model, request))
    between = model.interpolate_samples(n, request.steps, y, generator=_generator(model, request))
    x_0, x_1, labels = _pairs(model, data, request)
    x_T = model.encode(x_0, labels)
    decoded = model.decode(x_T, labels)
    pictures = {
        "denoising": film(evenly_spaced(way, request.steps)),
        "interpolations_of_noise": _rows(between),
        "interpolations_of_images": _rows([x_0, *model.interpolate(x_0, x_1, request.steps, labels), x_1]),
        "encoded_and_decoded": _rows([x_0, x_T / x_T.std(), decoded], by_column=True),
    }
    error = (decoded - x_0).square().mean().sqrt().item()
    return Space(pictures, numbers={"encoded and decoded: root mean square error, of a range of 2": f"{error:.2g}"})


@explore.register
def _(model: LatentModel, data: AnyData | None, request: Request) -> Space:
    found = _encoded(model, data, request, request.split)
    order = found.z.var(0).argsort(descending=True).tolist()
    x_0, x_1, y = _pairs(model, data, request)
    y_1 = None if y is None else y[:1]
    traversed = model.traverse(x_0[:1], y_1, dimensions=order[: request.num_images], steps=request.steps)
    pictures = {
        "reconstructions": _rows([x_0, model.reconstruct(x_0, y)], by_column=True),
        "traversals": _rows(traversed.transpose(0, 1)),
    }
    for name, is_spherical in {"linear": False, "spherical": True}.items():
        path = model.interpolate(x_0, x_1, request.steps, y, is_spherical=is_spherical)
        pictures[f"interpolations_{name}"] = _rows([x_0, *path, x_1])
    if len(order) > 1:
        grid = model.latent_grid(16, y_1, dimensions=(order[0], order[1]))
        pictures["manifold"] = picture(grid.flatten(0, 1), grid.shape[1])
    active = ActiveUnits(len(order))
    active.update(found.z)
    numbers = {"active units": f"{int(active.compute())} of {len(order)}"} | _probed(model, data, request, found)
    return Space(pictures, {"map": latent_map(found, None if data is None else data.class_names)}, numbers, found)


# ---------------------------------------------------------------- images and latents


def _generator(model: GenerativeModule, request: Request) -> torch.Generator:
    return torch.Generator(model.device).manual_seed(request.seed)


def _condition(model: GenerativeModule, labels: Tensor | None) -> Tensor | None:
    return labels if model.num_classes is not None else None


def _asked(model: GenerativeModule, request: Request) -> Tensor | None:
    """Return the classes of the rows of samples, (n,), None for a model without classes."""
    if model.num_classes is None:
        return None
    classes = torch.tensor(request.labels or list(range(model.num_classes)), device=model.device)
    return classes[torch.arange(request.num_images, device=model.device) % len(classes)]


def _images(data: AnyData | None, split: Split, limit: int) -> Iterable[dict[str, Tensor]]:
    if data is None:
        raise ValueError("data=None, but real images are to be shown: give data (--data ImageDataModule)")
    return data.loader(split, limit=limit)


def _chosen(model: GenerativeModule, data: AnyData | None, request: Request, n: int) -> tuple[Tensor, Tensor | None]:
    """Return ``n`` real images, with their classes in turn if they have any, and their labels."""
    batches = list(_images(data, request.split, CANDIDATES))
    images = torch.cat([batch["image"] for batch in batches])
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(request.seed))
    if "label" not in batches[0]:
        if request.labels:
            raise ValueError(f"labels={request.labels}: the images have no labels, leave them out")
        return images[order[torch.arange(n) % len(order)]].to(model.device), None
    labels = torch.cat([batch["label"] for batch in batches])
    present = labels.unique().tolist()
    if absent := set(request.labels or present) - set(present):
        raise ValueError(f"labels={request.labels}: {min(absent)} is none of the images' classes, which are {present}")
    classes = (request.labels or present) * n
    of_class = {k: order[labels[order] == k].tolist() for k in set(classes[:n])}
    picks = [of_class[k][classes[:i].count(k) % len(of_class[k])] for i, k in enumerate(classes[:n])]
    return images[picks].to(model.device), labels[picks].to(model.device)


def _pairs(model: GenerativeModule, data: AnyData | None, request: Request) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return real images (n, C, H, W), as many others, of the same classes if it is a model of those, and the labels.

    Other pairs are of two classes, which is more to be seen.
    """
    n = request.num_images
    x_0, y = _chosen(model, data, request, n)
    if model.num_classes is None:
        more, _ = _chosen(model, data, request, n + 1)
        return x_0, more[1:], None
    classes = [] if y is None else y.tolist()
    more, _ = _chosen(model, data, dataclasses.replace(request, labels=classes), 2 * n)
    return x_0, more[n:], y


def _encoded(model: LatentModel, data: AnyData | None, request: Request, split: Split) -> Latents:
    z, labels = [], []
    for batch in _images(data, split, request.max_images):
        z.append(model.posterior_means(*model.unpack(batch)).cpu())
        labels += [batch["label"]] if "label" in batch else []
    return Latents(torch.cat(z), torch.cat(labels) if labels else None, split)


def _probed(model: LatentModel, data: AnyData | None, request: Request, found: Latents) -> dict[str, str]:
    """Return the accuracy of a linear probe fitted to training images' latents, in words, if there are classes."""
    if found.labels is None:
        return {}
    train = _encoded(model, data, request, "train")
    test = found if found.split == "test" else _encoded(model, data, request, "test")
    assert train.labels is not None
    assert test.labels is not None
    probe = fit_linear_probe(train.z, train.labels)
    accuracy, chance = probe.accuracy(test.z, test.labels), probe.chance(test.labels)
    return {f"linear probe's accuracy on {len(test.z):,} test images": f"{accuracy:.3f} (chance: {chance:.3f})"}


# ---------------------------------------------------------------- pictures


def _rows(columns: Sequence[Tensor] | Tensor, by_column: bool = False) -> Tensor:
    """Draw ``columns``, each of n images (n, C, H, W), as n rows; ``by_column``: each as a row; points: all at once."""
    stacked = torch.stack(list(columns)).clamp(-1, 1)
    stacked = stacked if by_column else stacked.transpose(0, 1)
    if are_points(stacked[0]):
        return picture(stacked.flatten(0, 1))
    return picture(stacked.flatten(0, 1), stacked.shape[1])
