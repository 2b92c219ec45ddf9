"""The likelihood of test images, for models that define one."""

from math import prod
from typing import Any

import lightning as L
import torch

from lit_generative.callbacks.run import append_record, log_scalars, run_data, run_folder
from lit_generative.callbacks.table import print_likelihoods
from lit_generative.checks import check_count
from lit_generative.contracts import ImageData
from lit_generative.core import GenerativeModule
from lit_generative.evaluation.likelihood import defines_likelihoods, estimate_likelihoods, mean_likelihoods
from lit_generative.processes import world_size

__all__ = ["EstimateLikelihood"]


class EstimateLikelihood(L.Callback):
    """Estimates -log P of test images in ``test``: logged, printed, and in ``likelihood.json``, with its protocol.

    For each estimate that :meth:`GenerativeModule.likelihoods` gives, such as ``bound``, there are ``test/bound_nats``,
    its mean over images, and ``test/bound_bits_per_dim``, the same over C H W log 2. Those that end in ``_stderr`` are
    standard errors, s / sqrt(num_images), of the choice of images and of the estimate's own noise. Weights and
    precision are those that samples are drawn with. The same seed gives the same numbers on as many processes. A model
    that defines no likelihood is left alone.

    Args:
        num_images: Test images, always the same ones; 0: none, which turns it off.
        evaluations: About how many times an estimate may ask the network about an image.
        batch_size: Images a batch and process.
        seed: The seed of the estimates' noise.

    Raises:
        ValueError: If a number is too small, there is no data module, or an estimate is not one number an image.
    """

    def __init__(self, num_images: int = 200, evaluations: int = 100, batch_size: int = 100, seed: int = 0) -> None:
        if num_images != 0:
            check_count("num_images", num_images, at_least=2, hint="the standard error needs two, and 0 is none")
        check_count("evaluations", evaluations)
        check_count("batch_size", batch_size)
        check_count("seed", seed, at_least=0)
        self.num_images = num_images
        self.evaluations = evaluations
        self.batch_size = batch_size
        self.seed = seed

    def setup(self, trainer: L.Trainer, pl_module: GenerativeModule, stage: str) -> None:  # type: ignore[override]
        """Ask for a data module, which says what its test images are."""
        if stage == "test" and self._applies(pl_module):
            run_data(trainer, self)

    def on_test_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Estimate and report, but for a dry run (``fast_dev_run``)."""
        if not self._applies(pl_module) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        data = run_data(trainer, self)
        options = {"evaluations": self.evaluations, "batch_size": self.batch_size, "seed": self.seed}
        # Lightning tests in inference mode, in which nothing can be differentiated: some estimates need divergences
        with torch.inference_mode(False):
            found = estimate_likelihoods(pl_module, data, "test", self.num_images, **options)
        folder = run_folder(trainer)
        if not found or not trainer.is_global_zero:
            return
        metrics = mean_likelihoods(found, prod(data.image_shape))
        protocol = self._protocol(pl_module, data, len(next(iter(found.values())))) | options
        record = {"images_seen": pl_module.images_seen, "step": trainer.global_step}
        append_record(folder / "likelihood.json", record | {"metrics": metrics, "protocol": protocol})
        log_scalars(trainer, pl_module, {f"test/{name}": value for name, value in metrics.items()})
        for logger in trainer.loggers:
            logger.log_hyperparams({"likelihood_protocol": protocol})
        title = f"{type(pl_module).__name__} after {pl_module.images_seen:,} images"
        print_likelihoods(title, metrics, protocol)

    def _applies(self, model: GenerativeModule) -> bool:
        return self.num_images > 0 and defines_likelihoods(model)

    def _protocol(self, model: GenerativeModule, data: ImageData, num_images: int) -> dict[str, Any]:
        return {
            "num_images": num_images,
            "split": "test",
            "data": data.protocol("test"),
            "weights": model.weights,
            "precision": model.precision,
            "processes": world_size(),
        }
