"""What a network is told of the noise in its input."""

from torch import Tensor

from lit_generative.checks import check_range
from lit_generative.diffusion.schedules import Schedule
from lit_generative.nn.embeddings import TimePosition

__all__ = ["LogSNRPosition"]


class LogSNRPosition(TimePosition):
    """c_noise = log(sigma / alpha) / 4, the log-SNR over -8 (Karras et al. 2022 table 1).

    Networks then see how much noise there is, whatever the schedule; at the same level they may be sampled along
    another one.

    Args:
        schedule: The schedule in use.
        scale: What c_noise is multiplied by. Sinusoids of theirs tell levels apart by their highest frequency alone;
            250 spreads EDM's range of levels over as much as the 1,000 steps take.
    """

    def __init__(self, schedule: Schedule, scale: float = 1.0) -> None:
        check_range("scale", scale, above=0, hint="theirs is 1")
        self.schedule, self.scale = schedule, scale

    def __call__(self, t: Tensor) -> Tensor:
        """Return -scale lambda(t) / 8."""
        return self.schedule.log_snr(t) * (-self.scale / 8)
