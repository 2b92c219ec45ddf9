"""Images of a trained model, drawn into files."""

from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor
from tqdm import tqdm

from lit_generative.checks import check_count
from lit_generative.core import GenerativeModule
from lit_generative.devices import device_named
from lit_generative.files import check_folder
from lit_generative.finite import check_finite_samples, check_finite_weights
from lit_generative.labels import Labels, class_indices, class_suffix
from lit_generative.pictures import are_points, picture, save_csv, save_png
from lit_generative.sampling import check_is_of_classes

__all__ = ["draw_samples"]


def draw_samples(
    ckpt_path: Path,
    output: Path,
    num_samples: int = 64,
    seed: int = 0,
    labels: Labels | None = None,
    grid: Path | None = None,
    batch_size: int = 250,
    device: str = "auto",
) -> None:
    """Draw images from a trained model into PNG files of the data's own size and channels, 8 bit.

    Their names say the class, if there is one: sample_000000_class_7_sneaker.png. Points of the plane go into one file,
    samples.csv.

    Args:
        ckpt_path: The model's checkpoint.
        output: The folder for the images; it must not have samples in it already.
        num_samples: How many images.
        seed: Decides which images are drawn (together with batch_size).
        labels: Classes of a conditional model by index or name, such as sneaker or "[3, bag]", repeated in turn; by
            default all of them.
        grid: A PNG file for one picture of all samples.
        batch_size: Images drawn at a time.
        device: Where to draw, for instance cpu or cuda:1; auto: the GPU if there is one.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        FloatingPointError: If the weights or the images are not finite.
        ValueError: If something would be overwritten, or an argument does not fit the model.
    """
    _check_nothing_is_there(output, grid)
    check_count("num_samples", num_samples)
    check_count("batch_size", batch_size)
    check_count("seed", seed, at_least=0)
    model = GenerativeModule.load_from_checkpoint(ckpt_path, map_location="cpu").to(device_named(device))
    check_finite_weights(model, ckpt_path)
    check_is_of_classes(model, "sample")
    names = model.class_names
    y = _labels(model, num_samples, class_indices(labels, model.num_classes, names))
    suffixes = [""] * num_samples if y is None else [class_suffix(label, names) for label in y.tolist()]
    check_folder(output, "output")
    if grid is not None:
        check_folder(grid.parent, "grid")
    generator = torch.Generator(model.device).manual_seed(seed)
    kept, seconds = [], 0.0
    with tqdm(total=num_samples, unit="images", desc="samples", disable=None) as bar:
        for start in range(0, num_samples, batch_size):
            n = min(batch_size, num_samples - start)
            begin = perf_counter()
            images = model.sample(n, None if y is None else y[start : start + n], generator=generator).cpu()
            seconds += perf_counter() - begin
            check_finite_samples(images, ckpt_path)
            if not are_points(images):
                for i, image in enumerate(images, start):
                    save_png(image, output / f"sample_{i:06d}{suffixes[i]}.png")
            kept += [images] if grid is not None or are_points(images) else []
            bar.update(n)
    if are_points(images):
        save_csv(torch.cat(kept), output / "samples.csv")
    if grid is not None:
        save_png(picture(torch.cat(kept)), grid)
    all_of_them = f", all of them in {grid}" if grid else ""
    print(f"{num_samples} images in {output}, drawn at {num_samples / seconds:,.3g} images/s{all_of_them}")


def _check_nothing_is_there(output: Path, grid: Path | None) -> None:
    taken = next(output.glob("sample[s_]*"), None) or (grid if grid is not None and grid.exists() else None)
    if taken is not None:
        raise ValueError(f"{taken} is there already; give another output, nothing is overwritten")
    if output.exists() and not output.is_dir():
        raise ValueError(f"output={output} is a file; give a folder")


def _labels(model: GenerativeModule, num_samples: int, labels: list[int] | None) -> Tensor | None:
    """Return the classes of all samples, (num_samples,); None for a model without classes."""
    if model.num_classes is None:
        return None
    chosen = torch.tensor(labels or list(range(model.num_classes)))
    return chosen[torch.arange(num_samples) % len(chosen)]
