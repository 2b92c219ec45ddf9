"""The folder of a comparison: what was asked for, so that the same command goes on and another one is refused."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lit_generative.files import make_folder, write_json

__all__ = ["Plan"]

FILE = "plan.json"
LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a comparison's folder is for.

    Attributes:
        folder: Where everything is.
        settings: All that decides the numbers, as plain data.
        command: The command line that goes on.
    """

    folder: Path
    settings: dict[str, Any]
    command: str

    def check_folder(self) -> None:
        """Look whether the folder is new, or holds this very comparison; nothing is written yet.

        Raises:
            ValueError: If it holds something else, or a comparison of other settings.
        """
        path = self.folder / FILE
        if not path.is_file():
            if self.folder.exists() and (not self.folder.is_dir() or {*self.folder.iterdir()} - {self.folder / LOCK}):
                raise ValueError(
                    f"output={self.folder} is no comparison's folder; give a new one, nothing is overwritten"
                )
            return
        try:
            found = json.loads(path.read_text())
            before, command = found["settings"], found["command"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}); give another output") from None
        if difference := _difference(before, json.loads(json.dumps(self.settings))):
            raise ValueError(
                f"output={self.folder} holds another comparison ({difference}); go on with that one by `{command}`, "
                "or give another output"
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Write it down, and keep other comparisons out of the folder.

        Raises:
            ValueError: If another process is at work there, or nothing can be written.
        """
        make_folder(self.folder, "output")
        try:
            with FileLock(self.folder / LOCK, timeout=0):
                self.check_folder()  # it may have become another's by now
                write_json(self.folder / FILE, {"command": self.command, "settings": self.settings})
                yield
        except Timeout:
            raise ValueError(f"output={self.folder}: another comparison is at work there; give another one") from None


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the first setting that differs, or return ""."""
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            return f"{name} is {_short(before.get(name))} there and {_short(now.get(name))} here"
    return ""


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
