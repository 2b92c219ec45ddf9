"""The likelihood of test images, for models that define one."""

from math import log, prod
from typing import Any

import lightning as L
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lit_generative.callbacks.evaluate import append_record
from lit_generative.callbacks.samples import run_folder
from lit_generative.core import GenerativeModule
from lit_generative.evaluation.cache import broadcast, gather, rank_and_world
from lit_generative.evaluation.reference import counter
from lit_generative.sampling import inference

__all__ = ["EstimateLikelihood"]

UNITS = {"nats": "nats", "bits_per_dim": "bits/dim"}  # by the ends of the names


class EstimateLikelihood(L.Callback):
    """Estimates -log P of test images in ``test``: logged, printed, and in ``likelihood.json``, with its protocol.

    For each estimate that :meth:`GenerativeModule.likelihoods` gives, such as ``bound``, there are ``test/bound_nats``,
    its mean over images, and ``test/bound_bits_per_dim``, the same over C H W log 2. Those with ``_stderr`` at the end
    are their standard errors, s / sqrt(num_images), in which the choice of images and the estimate's own noise are
    both contained. It is done by the weights and in the precision that samples are drawn with. The same seed gives the
    same numbers on as many processes. A model that defines no likelihood is left alone.

    Args:
        num_images: Test images, always the same ones; 0: none, which turns it off.
        evaluations: About how many times an estimate may ask the network about an image.
        batch_size: Images a batch and process.
        seed: The seed of the estimates' noise.

    Raises:
        ValueError: If a number is too small, there is no data module, or an estimate is not one number an image.
    """

    def __init__(self, num_images: int = 200, evaluations: int = 100, batch_size: int = 100, seed: int = 0) -> None:
        if num_images == 1:
            raise ValueError(
                "EstimateLikelihood: num_images=1 leaves the standard error open; use 2 or more, or 0 for none"
            )
        bounds = {"num_images": (num_images, 0), "evaluations": (evaluations, 1), "batch_size": (batch_size, 1)}
        for name, (value, least) in (bounds | {"seed": (seed, 0)}).items():
            if value < least:
                raise ValueError(f"EstimateLikelihood: {name}={value} is too small; it is at least {least}")
        self.num_images = num_images
        self.evaluations = evaluations
        self.batch_size = batch_size
        self.seed = seed

    def setup(self, trainer: L.Trainer, pl_module: GenerativeModule, stage: str) -> None:  # type: ignore[override]
        """Ask for a data module, which says what its test images are."""
        if stage == "test" and self._applies(pl_module) and trainer.datamodule is None:  # type: ignore[attr-defined]
            raise ValueError(
                "EstimateLikelihood needs a data module: trainer.test(model, datamodule=ImageDataModule(...))"
            )

    def on_test_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Estimate and report, but for a dry run (``fast_dev_run``)."""
        if not self._applies(pl_module) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        # Lightning tests in inference mode, in which nothing can be differentiated: some estimates need divergences
        with torch.inference_mode(False):
            values = self.estimate(trainer, pl_module)
        if not values:
            return
        folder = run_folder(trainer)  # asked for by every process: the first one broadcasts it
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        metrics = summarise(values, prod(data.image_shape))
        protocol = self._protocol(pl_module, data, len(next(iter(values.values()))))
        record = {"images_seen": pl_module.images_seen, "step": trainer.global_step}
        append_record(folder / "likelihood.json", record | {"metrics": metrics, "protocol": protocol})
        scalars = {f"test/{name}": value for name, value in metrics.items()} | {"images_seen": pl_module.images_seen}
        for logger in trainer.loggers:
            logger.log_metrics(scalars, trainer.global_step)
            logger.log_hyperparams({"likelihood_protocol": protocol})
        title = f"{type(pl_module).__name__} after {pl_module.images_seen:,} images"
        print_likelihoods(title, list(values), metrics, protocol)

    def _applies(self, model: GenerativeModule) -> bool:
        return self.num_images > 0 and type(model).likelihoods is not GenerativeModule.likelihoods

    def estimate(self, trainer: L.Trainer, model: GenerativeModule) -> dict[str, Tensor]:
        """Return -log P in nats by name, each (num_images,), float64: all processes' images."""
        data, (rank, world) = trainer.datamodule, rank_and_world()  # type: ignore[attr-defined]
        batches: list[dict[str, Tensor]] = []
        with counter("likelihoods", self.num_images, progress=True) as bar:
            loader = data.loader("test", batch_size=self.batch_size, limit=self.num_images)
            for i, batch in enumerate(loader):
                x, y = model.unpack({name: value.to(model.device) for name, value in batch.items()})
                if len(x):  # of fewer images than processes, some get none
                    seed = int(np.random.SeedSequence([self.seed, i * world + rank]).generate_state(1)[0])
                    batches.append(self._estimate_batch(model, x, y, torch.Generator(model.device).manual_seed(seed)))
                    bar.update(len(x))
        names = broadcast(list(batches[0]) if batches else [])
        columns = [torch.stack([batch[name] for name in names], dim=1) for batch in batches if names]
        rows = gather(torch.cat([*columns, torch.zeros(0, len(names), device=model.device)]))
        return dict(zip(names, rows.cpu().double().T, strict=True))

    def _estimate_batch(
        self, model: GenerativeModule, x: Tensor, y: Tensor | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        with inference(model, generator):
            found = model.likelihoods(x, y, evaluations=self.evaluations, generator=generator)
        for name, value in found.items():
            if value.shape != (len(x),):
                raise ValueError(
                    f"{type(model).__name__}.likelihoods gives {name!r} in the shape {tuple(value.shape)} for {len(x)} "
                    f"images; it must be one number an image, ({len(x)},)"
                )
        return {name: value.detach().float() for name, value in found.items()}

    def _protocol(self, model: GenerativeModule, data: Any, num_images: int) -> dict[str, Any]:
        return {
            "num_images": num_images,
            "split": "test",
            "data": data.protocol("test"),
            "evaluations": self.evaluations,
            "weights": model.weights,
            "precision": model.precision,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "processes": rank_and_world()[1],
        }


def summarise(values: dict[str, Tensor], num_dims: int) -> dict[str, float]:
    """Return mean and standard error of each estimate, by its name and unit.

    Args:
        values: -log P in nats by name, (N,).
        num_dims: C H W.
    """
    metrics: dict[str, float] = {}
    for name, nats in values.items():
        for suffix, scale in {"nats": 1.0, "bits_per_dim": 1 / (num_dims * log(2))}.items():
            metrics[f"{name}_{suffix}"] = scale * nats.mean().item()
            metrics[f"{name}_{suffix}_stderr"] = scale * nats.std().item() / len(nats) ** 0.5
    return metrics


def print_likelihoods(title: str, names: list[str], metrics: dict[str, float], protocol: dict[str, Any]) -> None:
    """Print what :func:`summarise` returns, a line for each estimate and unit, and the protocol in a sentence."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("", "value", "stderr", "unit"):
        table.add_column(column, justify="right" if column in ("value", "stderr") else "left")
    for key, unit in ((f"{name}_{suffix}", unit) for name in names for suffix, unit in UNITS.items()):
        table.add_row(f"test/{key}", f"{metrics[key]:.4g}", f"{metrics[f'{key}_stderr']:.3g}", unit)
    console = Console()
    console.print(table)
    console.print(
        f"-log P of {protocol['num_images']:,} test images, {protocol['evaluations']} evaluations, "
        f"weights {protocol['weights']}, precision {protocol['precision']}; stderr is the means' standard error.",
        highlight=False,
    )
