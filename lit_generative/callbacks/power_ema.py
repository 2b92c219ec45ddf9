"""Averages of weights whose length is chosen after the training (Karras et al. 2024, "EDM2", section 3)."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lit_generative.callbacks.ema import averaged_tensors
from lit_generative.callbacks.run import run_folder
from lit_generative.checks import check_count, check_range
from lit_generative.files import replacing
from lit_generative.numerics import at_least_single

__all__ = ["PowerEMA", "reconstruct"]


class PowerEMA(L.Callback):
    """Keeps averages with weights that are powers of time, and snapshots of them from which any other is made.

    After step t an average is sum over steps i of w_i theta_i, w_i proportional to (i / t)^gamma about, by the update
    average <- beta average + (1 - beta) theta with beta = (1 - 1 / t)^(gamma + 1) (their eq. 2). Its length is the same
    share of the training at any time: ``sigma_rel``, the relative standard deviation of the times that it holds.

    Snapshots are files ``power_ema/<step>_<sigma_rel>.safetensors`` in the run's folder. :func:`reconstruct` makes of
    them the average of any sigma_rel between about half the smallest and twice the largest. The model is left as it
    is; :class:`~lit_generative.callbacks.EMA` may be used beside it. Checkpoints hold the averages, so that a resumed
    run goes on exactly.

    Args:
        sigma_rels: Those that are kept, at least two; each costs memory of the size of the model. Theirs are 0.05, 0.1.
        every_n_steps: Steps between snapshots; theirs are a hundred in all or more.

    Raises:
        ValueError: If there are fewer than two different ``sigma_rels``, or one is out of its range.
    """

    def __init__(self, sigma_rels: Sequence[float] = (0.05, 0.1), every_n_steps: int = 500) -> None:
        check_count("every_n_steps", every_n_steps)
        if len(set(sigma_rels)) < 2:
            raise ValueError(f"sigma_rels={list(sigma_rels)}: others are made of at least two; theirs are 0.05 and 0.1")
        self.gammas = {sigma_rel: exponent(sigma_rel) for sigma_rel in sigma_rels}
        self.every_n_steps = every_n_steps
        self.steps = 0
        self._resumed: dict[str, Any] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start from the model's weights, or from the checkpoint's averages."""
        self._tensors = averaged_tensors(pl_module)
        self._trained_steps = trainer.global_step
        self.steps = self._resumed.get("steps", 0)
        first = [at_least_single(tensor.detach().clone()) for tensor in self._tensors]
        self._averages = self._resumed.get("averages") or {
            sigma_rel: [tensor.clone() for tensor in first] for sigma_rel in self.gammas
        }
        for averages in self._averages.values():
            averages[:] = [a.to(p.device) for a, p in zip(averages, self._tensors, strict=True)]
        self._resumed = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average after each step of the optimizer, and write what is due."""
        if trainer.global_step == self._trained_steps:
            return
        self._trained_steps, self.steps = trainer.global_step, self.steps + 1
        trained = [at_least_single(tensor.detach()) for tensor in self._tensors]
        for sigma_rel, averages in self._averages.items():
            beta = (1 - 1 / self.steps) ** (self.gammas[sigma_rel] + 1)
            torch._foreach_lerp_(averages, trained, 1 - beta)
        if self.steps % self.every_n_steps == 0:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the last snapshots."""
        if self.steps % self.every_n_steps:
            self._write(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The averages and their number of steps."""
        return {"steps": self.steps, "averages": self._averages} if self.steps else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what a checkpoint has; it is used when fitting starts."""
        self._resumed = state_dict

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        folder = run_folder(trainer) / "power_ema"  # every process has to ask
        if not trainer.is_global_zero:
            return
        names = {id(t): name for name, t in (*pl_module.named_parameters(), *pl_module.named_buffers())}
        for sigma_rel, averages in self._averages.items():
            tensors = {names[id(p)]: a.contiguous() for p, a in zip(self._tensors, averages, strict=True)}
            about = {"steps": str(self.steps), "gamma": repr(self.gammas[sigma_rel])}
            with replacing(folder / f"{self.steps:09}_{sigma_rel}.safetensors") as scratch:
                save_file(tensors, scratch, about)


def reconstruct(snapshots: Iterable[str | Path], sigma_rel: float, steps: int | None = None) -> dict[str, Tensor]:
    """Return the average of another length, by name, as ``model.load_state_dict(..., strict=False)`` takes it.

    It is the mixture of snapshots whose weighting of time is nearest to the wanted one by least squares (appendix C).

    Args:
        snapshots: Files that :class:`PowerEMA` has written, of one run (and of those that it was resumed from).
        sigma_rel: The wanted length.
        steps: The step at which the average ends. None: the last one of the snapshots.

    Raises:
        ValueError: If there are no snapshots up to ``steps``, or ``sigma_rel`` is out of its range.
    """
    about = {}
    for path in snapshots:
        with safe_open(path, framework="pt") as file:
            about[path] = (int(file.metadata()["steps"]), float(file.metadata()["gamma"]))
    end = max((step for step, _ in about.values()), default=0) if steps is None else steps
    about = {path: known for path, known in about.items() if known[0] <= end}
    if not about:
        raise ValueError(f"steps={steps}: there are no snapshots up to there; give those of PowerEMA's folder")
    shares = mixture(list(about.values()), (end, exponent(sigma_rel)))
    total: dict[str, Tensor] = {}
    types: dict[str, torch.dtype] = {}
    for path, share in zip(about, shares, strict=True):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                types[name] = tensor.dtype
                total[name] = total.get(name, 0) + share * tensor.double()
    return {name: tensor.to(types[name]) for name, tensor in total.items()}


def exponent(sigma_rel: float) -> float:
    """Return gamma of a relative standard deviation, sqrt(gamma + 1) / ((gamma + 2) sqrt(gamma + 3)) (eq. 3)."""
    check_range("sigma_rel", sigma_rel, above=0, below=12**-0.5, hint="a plain mean of all steps has 0.289")
    low, high = 0.0, 1 / sigma_rel
    for _ in range(100):  # it falls with gamma
        gamma = (low + high) / 2
        is_longer = (gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5) > sigma_rel
        low, high = (gamma, high) if is_longer else (low, gamma)
    return gamma


def mixture(known: Sequence[tuple[int, float]], wanted: tuple[int, float]) -> list[float]:
    """Return the shares of averages (steps, gamma) whose mixture is nearest to the ``wanted`` one (appendix C).

    They are scaled to the sum 1, or weights would shrink where the wanted average ends between two snapshots.
    """
    products = torch.tensor([[_product(a, b) for b in known] for a in known], dtype=torch.float64)
    target = torch.tensor([_product(a, wanted) for a in known], dtype=torch.float64)
    scale = products.diagonal().rsqrt()
    solution = torch.linalg.lstsq(products * scale * scale[:, None], (target * scale)[:, None], driver="gelsd").solution
    shares = solution[:, 0] * scale
    return (shares / shares.sum()).tolist()


def _product(a: tuple[int, float], b: tuple[int, float]) -> float:
    """Return the integral of p_a(tau) p_b(tau), p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1) up to t."""
    (t_a, gamma_a), (t_b, gamma_b) = a, b
    t = min(t_a, t_b)
    ends = (t / t_a) ** gamma_a * (t / t_b) ** gamma_b * t / (t_a * t_b)
    return (gamma_a + 1) * (gamma_b + 1) * ends / (gamma_a + gamma_b + 1)
