"""A schedule of the learning rate that leaves the rate itself to the optimizer."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from lit_generative.checks import check_count, check_range

__all__ = ["OneCycle"]


class OneCycle(OneCycleLR):
    """A warm-up to the optimizer's own learning rate, and a half-cosine down from it (Smith & Topin 2019).

    torch's ``OneCycleLR`` has a ``max_lr`` of its own, so that the optimizer's learning rate says nothing. Here each
    group of parameters peaks at the ``lr`` that it was given. Momenta are left alone.

    Args:
        optimizer: Whose learning rates are scheduled; their present values are the peaks.
        total_steps: Steps of the whole training; models fill it in from their trainer.
        pct_start: The share of these in which the rate rises, in [0, 1].
        div_factor: The peak over the first rate, at least 1.
        final_div_factor: The first rate over the last, positive.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        if total_steps is None:
            raise ValueError("total_steps=None: give the number of steps of the training")
        check_count("total_steps", total_steps)
        check_range("pct_start", pct_start, at_least=0, at_most=1, hint="it is the share of the warm-up, such as 0.1")
        check_range("div_factor", div_factor, at_least=1, hint="the rate starts at the optimizer's over it")
        check_range("final_div_factor", final_div_factor, above=0, hint="the rate ends at the first one over it")
        if abs(pct_start * total_steps - 1) < 1e-6:  # a rise that ends as it starts: torch divides by its length, 0
            pct_start = 0
        super().__init__(
            optimizer,
            max_lr=[float(group["lr"]) for group in optimizer.param_groups],
            total_steps=total_steps,
            pct_start=float(pct_start),
            div_factor=div_factor,
            final_div_factor=final_div_factor,
            cycle_momentum=False,
        )
