"""Watching an adversarial training: is this collapse?"""

import dataclasses
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_generative.callbacks.evaluate import Evaluate
from lit_generative.callbacks.run import append_record, fixed_images, log_scalars, run_folder
from lit_generative.checks import check_count
from lit_generative.contracts import Diagnosable, as_batch
from lit_generative.core import GenerativeModule
from lit_generative.evaluation import Evaluation
from lit_generative.gan.verdict import History, Signs, Verdict, reach_verdict

__all__ = ["GANHealth"]

_FAR = 1.25  # times the median distance of real images to the nearest other one


class GANHealth(L.Callback):
    """Says whether a GAN is ``healthy``, and if not, what it suffers from and which option to change.

    - ``vanishing gradients``: the discriminator is so sure that the generator learns nothing from it, as happens under
      the minimax loss (Goodfellow et al. 2014 section 3; Arjovsky & Bottou 2017);
    - ``mode collapse``: the samples are a small part of the data (Metz et al. 2017; Srivastava et al. 2017);
    - ``discriminator overfits``: it knows its training images by heart (Karras et al. 2020);
    - ``diverged``: numbers without bounds, or samples that have become far worse than they were.

    Every few steps it looks at the discriminator, on fixed training and validation images, and at the samples of fixed
    noise, and logs ``health/…``: ``real_accuracy``, ``fake_accuracy`` and ``held_out_accuracy``, ``logit_gap``,
    ``logit_magnitude``, ``generator_gradient``, ``diversity`` (of samples relative to real images), ``reach`` (of how
    many real images samples are the nearest to, relative to real ones) and ``healthy`` (0 or 1), of the weights in
    training, not of their average. With :class:`Evaluate`, recall, coverage, missing classes
    and the course of the Fréchet distance count, too. The verdict, by the rules of ``gan/verdict.py``, is printed when
    it turns unhealthy and at the end, and is in ``evaluation.json``. A run has the same weights with it and without.

    The model must be :class:`~lit_generative.contracts.Diagnosable`, as a GAN is.

    Args:
        every_n_steps: Steps between looks; the first is after the first step. One costs less than a step on
            ``2 * num_samples`` images.
        num_samples: Samples, and as many training and validation images a process.
        seed: The seed of the samples' noise.
        stop: Whether to stop a run that is not healthy.
        patience: After so many looks (or evaluations) in a row; false alarms last for up to nine looks.

    Raises:
        ValueError: If a number is too small, the model is not diagnosable, or there are no validation images.
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        num_samples: int = 64,
        seed: int = 0,
        stop: bool = False,
        patience: int = 10,
    ) -> None:
        check_count("every_n_steps", every_n_steps)
        check_count("num_samples", num_samples, at_least=2)
        check_count("seed", seed, at_least=0)
        check_count("patience", patience)
        self.every_n_steps = every_n_steps
        self.num_samples = num_samples
        self.seed = seed
        self.stop = stop
        self.patience = patience
        self._forget()

    def _forget(self) -> None:
        self.history = History()
        self.verdict = "healthy"
        self._unhealthy = {"looks": 0, "evaluations": 0}  # in a row
        self._looked_at: int | None = None  # the step

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check the model, and begin a new record (that of a resumed run is read after this)."""
        if stage != "fit":
            return
        if not isinstance(pl_module, Diagnosable):
            name = type(pl_module).__name__
            raise ValueError(f"GANHealth needs a model with a loss and diagnose(x, y), a GAN; {name} has not both")
        self._forget()

    def on_train_start(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Take the images, and ask for the folder while every process does."""
        self._folder: Path = run_folder(trainer)
        self._seen = fixed_images(trainer, self, "train", self.num_samples, pl_module.device)
        self._held_out = fixed_images(trainer, self, "val", self.num_samples, pl_module.device)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: GenerativeModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at both networks if it is time."""
        step = trainer.global_step
        if self._looked_at is not None and step - self._looked_at < self.every_n_steps:
            return
        self._looked_at = step
        with isolate_rng():
            found = self._look(pl_module)
        # the mean over processes, so that all judge alike; a number that is not finite stays so
        means = trainer.strategy.reduce(torch.stack([v.float() for v in found.values()]), reduce_op="mean").tolist()
        values = dict(zip(found, means, strict=True))
        self.history.add_check(values)
        verdict = self._judge(trainer, pl_module)
        scalars = values | {"healthy": float(verdict.is_healthy)}
        batch_size = len(as_batch(batch)["image"])
        pl_module.log_dict({f"health/{name}": value for name, value in scalars.items()}, batch_size=batch_size)
        # an evaluation counts once, not at each look until the next one
        fresh = reach_verdict(self._signs(pl_module, with_evaluation=False))
        self._stop_if_persistent(trainer, "looks", fresh)

    def on_evaluation(self, trainer: L.Trainer, model: GenerativeModule, evaluation: Evaluation) -> dict[str, Any]:
        """Judge with the samples' quality as well; :class:`Evaluate` writes down and prints the verdict."""
        name = "fid" if "fid" in evaluation.metrics else "frechet_distance"
        floor, spread = (evaluation.protocol.get(key, {}).get(name) for key in ("floor", "floor_spread"))
        self.history.add_evaluation(model.images_seen, evaluation.metrics, evaluation.classes, floor, spread)
        verdict = self._judge(trainer, model, announce=trainer.validating)
        if trainer.validating:
            self._stop_if_persistent(trainer, "evaluations", verdict)
        self._log_verdict(trainer, model, verdict)
        return {"health": self._record(model, verdict), "lines": [f"Health: {verdict}"]}

    def on_train_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Give the verdict, unless an evaluation does."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        if not any(isinstance(callback, Evaluate) and callback.measures_quality for callback in callbacks):
            self._conclude(trainer, pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: GenerativeModule, exception: BaseException) -> None:  # type: ignore[override]
        """Give the verdict on a run that a number which is not finite ended; processes may not wait for each other."""
        if isinstance(exception, FloatingPointError) and self._looked_at is not None:
            self.history.is_finite = False
            self._conclude(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        own = {"verdict": self.verdict, "unhealthy": dict(self._unhealthy), "looked_at": self._looked_at}
        return own | {"history": dataclasses.asdict(self.history)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was."""
        self.verdict = state_dict["verdict"]
        self._unhealthy = dict(state_dict["unhealthy"])
        self._looked_at = state_dict["looked_at"]
        self.history = History(**state_dict["history"])

    def _look(self, model: GenerativeModule) -> dict[str, Tensor]:
        """Return the signs of one moment by their names, scalars."""
        assert isinstance(model, Diagnosable)
        boundary = model.loss.boundary
        seen = model.diagnose(*model.unpack(self._seen))
        real, labels = model.unpack(self._held_out)
        held_out = model.diagnose(real, labels)
        generator = torch.Generator(model.device).manual_seed(self.seed)
        samples = model.sample(len(real), labels, generator=generator)
        real_logits, fake_logits = seen["real_logits"].float(), seen["fake_logits"].float()
        is_real, is_fake, margins = _decide(real_logits, fake_logits, boundary)
        is_held_out_real, _, _ = _decide(held_out["real_logits"], held_out["fake_logits"], boundary)
        return {
            "real_accuracy": is_real.float().mean(),
            "fake_accuracy": is_fake.float().mean(),
            "held_out_accuracy": is_held_out_real.float().mean(),
            "logit_gap": real_logits.mean() - fake_logits.mean(),
            "logit_magnitude": margins.abs().max(),
            "generator_gradient": seen["generator_gradient"].float().mean(),
            "diversity": _mean_distance(samples) / _mean_distance(real),
            "reach": _reach(samples, self._seen["image"], real),
        }

    def _signs(self, model: GenerativeModule, with_evaluation: bool = True) -> Signs:
        assert isinstance(model, Diagnosable)
        has_boundary = model.loss.boundary is not None
        return self.history.signs(model.images_seen, with_evaluation, has_boundary)

    def _judge(self, trainer: L.Trainer, model: GenerativeModule, announce: bool = True) -> Verdict:
        verdict = reach_verdict(self._signs(model))
        if announce and not verdict.is_healthy and verdict.name != self.verdict and trainer.is_global_zero:
            print(f"\nHealth at step {trainer.global_step:,}: {verdict}")
        self.verdict = verdict.name
        return verdict

    def _stop_if_persistent(self, trainer: L.Trainer, kind: str, verdict: Verdict) -> None:
        self._unhealthy[kind] = 0 if verdict.is_healthy else self._unhealthy[kind] + 1
        if self.stop and trainer.strategy.reduce_boolean_decision(self._unhealthy[kind] >= self.patience, all=False):
            trainer.should_stop = True
            if trainer.is_global_zero:
                print(f"\nGANHealth stops the run after {self._unhealthy[kind]} {kind} in a row: {verdict}")

    def _conclude(self, trainer: L.Trainer, model: GenerativeModule) -> None:
        verdict = self._judge(trainer, model, announce=False)
        self._log_verdict(trainer, model, verdict)
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            record = {"images_seen": model.images_seen, "step": trainer.global_step}
            append_record(self._folder / "evaluation.json", record | {"health": self._record(model, verdict)})
            print(f"Health: {verdict}")

    def _log_verdict(self, trainer: L.Trainer, model: GenerativeModule, verdict: Verdict) -> None:
        for logger in trainer.loggers if trainer.is_global_zero else []:
            logger.log_hyperparams({"health": {"verdict": verdict.name, "advice": verdict.advice}})
        log_scalars(trainer, model, {"health/healthy": float(verdict.is_healthy)})

    def _record(self, model: GenerativeModule, verdict: Verdict) -> dict[str, Any]:
        signs = dataclasses.asdict(self._signs(model))
        return {"verdict": verdict.name, "advice": verdict.advice, "reasons": verdict.reasons, "signs": signs}


def _decide(real: Tensor, fake: Tensor, boundary: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return where D is right on real (B,) and on generated images (B,), and how far it is from indecision.

    Without a boundary the i-th real is compared with the i-th generated image.
    """
    if boundary is None:
        return real > fake, real > fake, real - fake
    return real > boundary, fake < boundary, torch.cat([real, fake]) - boundary


def _mean_distance(images: Tensor) -> Tensor:
    """Mean Euclidean distance of two different images of (n, ...), in units of x in [-1, 1]."""
    return torch.pdist(images.flatten(1).float()).mean()


def _reach(samples: Tensor, others: Tensor, real: Tensor) -> Tensor:
    """How many real images (n, ...) are the nearest one to some sample, relative to those that other real images reach.

    It is 1 where samples are farther from real images than these are from each other: noise is near to none of them,
    and the one that is nearest by chance says nothing of collapse.
    """
    found = []
    for images in (samples, others):
        distances, index = torch.cdist(images.flatten(1).float(), real.flatten(1).float()).min(dim=1)
        found.append((distances.median(), float(len(index.unique()))))
    (far, own), (usual, most) = found
    return torch.where(far > _FAR * usual, torch.ones_like(far), own / most)
