"""The folder of a comparison: what was asked for, so that the same command goes on and another one is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from lit_generative.comparison.training import Schedule
from lit_generative.files import write_json

__all__ = ["Plan"]

FILE = "plan.json"


@dataclasses.dataclass
class Plan:
    """What a comparison's folder was made for.

    Attributes:
        folder: Where everything is.
        settings: All that decides the numbers, as plain data.
        command: The command line that goes on.
        schedules: How long each recipe is trained, as far as that was measured.
    """

    folder: Path
    settings: dict[str, Any]
    command: str
    schedules: dict[str, Schedule] = dataclasses.field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, settings: dict[str, Any], command: str) -> "Plan":
        """Go on with the plan in a folder, or begin one where there is none; nothing is written yet.

        Raises:
            ValueError: If the folder holds something else, or a comparison of other settings.
        """
        settings = json.loads(json.dumps(settings))  # as a file gives it back
        path = folder / FILE
        if not path.is_file():
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise ValueError(f"output={folder} is no comparison's folder; give a new one, nothing is overwritten")
            return cls(folder, settings, command)
        try:
            found = json.loads(path.read_text())
            before, given = found["settings"], found["command"]
            schedules = {name: Schedule(**values) for name, values in found["schedules"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error}); give another output") from None
        if before != settings:
            raise ValueError(
                f"output={folder} holds another comparison ({_difference(before, settings)}); go on with that one by "
                f"`{given}`, or give another output"
            )
        return cls(folder, settings, command, schedules)

    def save(self) -> None:
        """Write it down."""
        schedules = {name: dataclasses.asdict(schedule) for name, schedule in self.schedules.items()}
        write_json(self.folder / FILE, {"command": self.command, "settings": self.settings, "schedules": schedules})


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the first setting that differs."""
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            return f"{name} is {_short(before.get(name))} there and {_short(now.get(name))} here"
    return "nothing differs"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
