"""Denoising models with fewer network evaluations a sample than they were made with."""

from collections.abc import Iterator
from contextlib import contextmanager

from lit_generative.core import GenerativeModule
from lit_generative.description import describe, rebuild
from lit_generative.diffusion.generation import DenoisingModel
from lit_generative.diffusion.samplers import Sampler

__all__ = ["at_most"]


@contextmanager
def at_most(model: GenerativeModule, evaluations: int | None) -> Iterator[None]:
    """Let a denoising model take at most so many network evaluations a sample; others are left as they are.

    Its sampler is exchanged for one of the most steps that keep within the limit, never of more than it has. A guided
    model evaluates two networks a step, a solver of second order may evaluate one twice: what the model itself counts
    decides.

    Args:
        model: Whose sampler is another one in the context.
        evaluations: The limit; None: no limit.

    Raises:
        ValueError: If even one step takes more, or the sampler cannot be made with other steps.
    """
    if not isinstance(model, DenoisingModel) or evaluations is None or model.network_evaluations <= evaluations:
        yield
        return
    own = model.sampler
    try:
        _limit(model, evaluations)
        yield
    finally:
        model.sampler = own


def _limit(model: DenoisingModel, evaluations: int) -> None:
    """Find the most steps by going down in proportion, for counting costs time, and then up again one by one."""
    own, steps = model.sampler, model.sampler.steps
    while (count := model.network_evaluations) > evaluations:
        if steps == 1:
            raise ValueError(f"evaluations={evaluations}: one step of this model takes {count}; give at least {count}")
        steps = max(1, min(steps - 1, steps * evaluations // count))
        model.sampler = _with_steps(own, steps, evaluations)
    while steps + 1 < own.steps:
        fitting, model.sampler = model.sampler, _with_steps(own, steps + 1, evaluations)
        if model.network_evaluations > evaluations:
            model.sampler = fitting
            return
        steps += 1


def _with_steps(sampler: Sampler, steps: int, evaluations: int) -> Sampler:
    """Build the sampler anew, so that it is checked, and described in protocols, as it is."""
    description = describe(sampler)
    try:
        return rebuild(description | {"init_args": description["init_args"] | {"steps": steps}})
    except (ImportError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"evaluations={evaluations}: {type(sampler).__name__} cannot be made with steps={steps} ({error}); "
            "give the model a sampler that can, or leave evaluations out"
        ) from error
