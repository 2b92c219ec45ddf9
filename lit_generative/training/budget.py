"""Recipes trained for the same minutes or images each, with several seeds, and resumable.

How long each training is :class:`~lit_generative.callbacks.Budget` decides, as in ``fit``. Minutes are those of
training alone, measured while it runs.
"""

import dataclasses
import gc
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lit_generative.checkpoints import read_checkpoint
from lit_generative.files import write_json
from lit_generative.training.cli import TrainerCLI
from lit_generative.training.folder import named_by_data
from lit_generative.training.parser import resolve_recipes

__all__ = ["TimedTraining", "Trained"]

MOST_TRIED = 10.0  # seconds of the run in which a recipe is seen to work


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        checkpoint: The last state.
        problem: Why it ended before its last step, for instance that a loss was not finite, or "".
    """

    checkpoint: Path
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class TimedTraining:
    """The trainings of one recipe, with a seed each, and their state in a folder: what is there is not done again.

    Attributes:
        recipe: Its name or file.
        length: Of training, for each seed, such as {"minutes": 5} or {"images": 200_000}.
        folder: Where the runs are: ``trial/NAME``, ``seed_0/NAME``, ...
        options: Further options of ``fit``, of its data and evaluation.
        data_name: What the data are called, if they are other than the recipe's own; None: they are its own.
    """

    recipe: str
    length: Mapping[str, float]
    folder: Path
    options: Sequence[str] = ()
    data_name: str | None = None

    @property
    def name(self) -> str:
        """What the recipe's runs are called, for instance "vae/fashion" or, of other data, "emoji/vae-fashion"."""
        return named_by_data(resolve_recipes(["--config", self.recipe])[1][0], self.data_name)

    @property
    def is_tried(self) -> bool:
        """Whether the recipe was seen to work."""
        return self._tried_file.is_file()

    @property
    def tried(self) -> Path:
        """The checkpoint of a short run, in which the recipe is seen to work; it says which data the recipe takes."""
        if not self.is_tried:
            self._try()
        return next(_last_states(self._tried_file.parent))

    @property
    def _tried_file(self) -> Path:
        return self.folder / "trial" / self.name / "tried.json"

    def _try(self) -> None:
        """Train for some seconds, with a validation, an evaluation and a grid of samples."""
        seconds = min(MOST_TRIED, max(1.0, 10 * self.length.get("minutes", 1.0)))
        options = [
            *self._options(0, self.folder / "trial", {"minutes": seconds / 60}),
            *("--budget.validations", "1", "--budget.evaluations", "1", "--trainer.limit_val_batches", "2"),
            *("--evaluation.num_samples", "100", "--evaluation.num_real", "200"),
        ]
        TrainerCLI("fit", options, says_where=False, run_name=self.name)
        gc.collect()  # trainer and model refer to each other
        write_json(self._tried_file, {"seconds": seconds})

    def train(self, seed: int) -> Trained:
        """Train with a seed of weights and noise, or go on with it, or find that it is done.

        Raises:
            FloatingPointError: If a loss is not finite before there is any checkpoint.
        """
        if (finished := self.finished(seed)) is not None:
            return finished
        folder = self._seed_folder(seed)
        options = self._options(seed, self.folder / f"seed_{seed}", self.length)
        last, problem = next(_last_states(folder), None), ""
        options += [] if last is None else ["--ckpt_path", str(last)]
        try:
            TrainerCLI("fit", options, says_where=False, run_name=self.name)
        except FloatingPointError as error:
            problem = str(error)
            if next(_last_states(folder), None) is None:
                raise
        gc.collect()
        checkpoint = next(_last_states(folder))
        write_json(folder / "finished.json", {"checkpoint": str(checkpoint.relative_to(folder)), "problem": problem})
        return Trained(checkpoint, problem)

    def finished(self, seed: int) -> Trained | None:
        """Return a training that is done, or None if it is not."""
        file = self._seed_folder(seed) / "finished.json"
        if not file.is_file():
            return None
        found = json.loads(file.read_text())
        return Trained(file.parent / found["checkpoint"], found["problem"])

    def _seed_folder(self, seed: int) -> Path:
        return self.folder / f"seed_{seed}" / self.name

    def _options(self, seed: int, root: Path, length: Mapping[str, float]) -> list[str]:
        """Return what every run has: one device, so that minutes are comparable, neither loggers nor a best state."""
        return [
            *("--config", self.recipe, *self.options, "--seed_everything", str(seed)),
            *("--trainer.default_root_dir", str(root), "--trainer.devices", "1", "--trainer.num_nodes", "1"),
            *(f"--budget.{name}={value}" for name, value in length.items()),
            *("--trainer.logger", "false", "--checkpoint.monitor", "null", "--checkpoint.save_top_k", "0"),
            *("--evaluate.every_n_epochs", "null", "--evaluate.at_end", "false"),
            *("--trainer.enable_progress_bar", str(sys.stderr.isatty()).lower()),
        ]


def _last_states(folder: Path) -> Iterator[Path]:
    """Yield the last states of a run's versions, the latest first, without damaged ones."""
    saved = folder.glob("version_*/checkpoints/last.ckpt")
    for path in sorted(saved, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            read_checkpoint(path, map_location="meta")
        except ValueError:
            continue
        yield path
