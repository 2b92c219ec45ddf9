"""Running the command line in this process."""

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path

from lit_generative.cli import main

TINY = [
    *("--data.subset", "200", "--data.batch_size", "50", "--trainer.max_epochs", "2"),
    *("--trainer.check_val_every_n_epoch", "1", "--trainer.limit_val_batches", "2", "--trainer.log_every_n_steps", "1"),
    *("--evaluation.num_samples", "60", "--evaluation.num_real", "80", "--trainer.enable_progress_bar", "false"),
]


@dataclass
class Outcome:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        """The folder that the command says its run has."""
        return Path(self.out.rpartition("run folder: ")[2].splitlines()[0])


def run(*arguments: str) -> Outcome:
    """Run a command in this process, which saves the seconds of a new one's imports."""
    out, err, path = io.StringIO(), io.StringIO(), list(sys.path)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(arguments))
    sys.path[:] = path
    return Outcome(status, out.getvalue(), err.getvalue())
