"""Steps against quality of a diffusion model's samplers, and what a sampler costs beside its network.

Usage: python benchmarks/sampling.py CKPT [--evaluations 5 10 ...] [--repetitions 10] [--scales 1 2 ...]

The first table has what a step of each sampler takes of its own, as a part of what the network takes: a run is timed
with a network that answers at once, for beside one that works the difference would be lost in the noise. The second has
the Fréchet distance, precision and recall of each sampler at each number of evaluations, all on the same images.
The model is not guided, so that a step is one evaluation (two in Heun's method). With ``--scales`` there is a third,
of the model's own sampler and guidance at other scales. Quality is measured on validation images, as options are chosen
by it. Without ``--evaluations`` or ``--scales``, or with ``--repetitions 0``, a table is left out.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import lit_generative.diffusion
import lit_generative.nn  # noqa: F401  for the classes that a checkpoint names
from lit_generative import GenerativeModule, ImageDataModule
from lit_generative.diffusion import DDIM, DDPM, AncestralSampler, DPMSolverPP2M, HeunSampler, Sampler, UniformSpacing
from lit_generative.evaluation import Evaluator


def samplers(evaluations: int) -> dict[str, Sampler]:
    """Return samplers of so many evaluations, Heun's method of one less if that is even."""
    return {
        "DDIM": DDIM(evaluations),
        "DPM-Solver++(2M)": DPMSolverPP2M(evaluations, UniformSpacing()),
        "Heun": HeunSampler((evaluations + 1) // 2),
        "ancestral": AncestralSampler(evaluations),
        "SDE-DPM-Solver++(2M)": DPMSolverPP2M(evaluations, UniformSpacing(), eta=1.0),
    }


def quality(model: DDPM, names: list[str], counts: list[int], num_samples: int) -> None:
    """Print the second table, row by row."""
    evaluator = Evaluator(num_samples=num_samples, split="val")
    print("| sampler | evaluations | Fréchet distance | precision | recall |\n|---|---|---|---|---|")
    for count in counts:
        for name in names:
            model.sampler = samplers(count)[name]
            print(f"| {name} | {model.network_evaluations} | {_found(model, evaluator)} |", flush=True)


def _found(model: DDPM, evaluator: Evaluator) -> str:
    found = evaluator.evaluate(model, ImageDataModule(), progress=False)
    return " | ".join(f"{found.metrics[metric]:.3f}" for metric in ("frechet_distance", "precision", "recall"))


def guidance_scales(model: DDPM, scales: list[float], num_samples: int) -> None:
    """Print the third table, row by row."""
    evaluator = Evaluator(num_samples=num_samples, split="val")
    print("| scale of guidance | evaluations | Fréchet distance | precision | recall |\n|---|---|---|---|---|")
    assert model.guidance is not None
    for scale in scales:
        model.guidance.scale = scale
        print(f"| {scale:g} | {model.network_evaluations} | {_found(model, evaluator)} |", flush=True)


class Instant(nn.Module):
    """A network that answers at once, always the same."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the answer."""
        return self.answer


@torch.no_grad()
def overhead(model: DDPM, steps: int, batch_size: int, repetitions: int) -> None:
    """Print the first table: medians, and the range of the part that is the sampler's own."""
    print("| sampler | network, ms an evaluation | sampler's own, ms | part | range |\n|---|---|---|---|---|")
    x, t = torch.randn(batch_size, *model.image_shape), torch.full((batch_size,), 0.5)
    model.eval()
    network = model.network
    instant = Instant(network(x, t))
    for name, sampler in samplers(steps).items():
        model.sampler = sampler
        evaluations = model.network_evaluations
        pairs = []
        for _ in range(repetitions + 1):
            bare = milliseconds(lambda: network(x, t), evaluations) / evaluations
            model.network = instant
            pairs.append((milliseconds(lambda: model.sample(batch_size), 1) / evaluations, bare))
            model.network = network
        owns, bares = zip(*pairs[1:], strict=True)  # the first one warms up
        parts = [own / bare for own, bare in pairs[1:]]
        spread = f"{min(parts):.2%} to {max(parts):.2%}"
        values = f"{statistics.median(bares):.1f} | {statistics.median(owns):.2f} | {statistics.median(parts):.2%}"
        print(f"| {name} | {values} | {spread} |", flush=True)


def milliseconds(run: Callable[[], object], repetitions: int) -> float:
    begin = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(repetitions):
            run()
    return 1000 * (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--samplers", nargs="+", choices=[*samplers(1)], default=[*samplers(1)], help="second table")
    parser.add_argument("--evaluations", type=int, nargs="*", default=[5, 10, 20, 50, 250, 1000])
    parser.add_argument("--num_samples", type=int, default=1000)
    parser.add_argument("--scales", type=float, nargs="*", default=[])
    parser.add_argument("--repetitions", type=int, default=10, help="of each timing")
    options = parser.parse_args()
    model = GenerativeModule.load_from_checkpoint(options.checkpoint)
    assert isinstance(model, DDPM)
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    if options.scales:
        guidance_scales(model, options.scales, options.num_samples)
        print()
    model.guidance = None
    if options.repetitions:
        overhead(model, 25, 64, options.repetitions)
        print()
    if options.evaluations:
        quality(model, options.samplers, options.evaluations, options.num_samples)


if __name__ == "__main__":
    main()
