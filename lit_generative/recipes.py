"""The recipes that ship: one runnable experiment each, as a YAML file under ``configs``."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Recipe", "recipes", "resolve"]


@dataclass(frozen=True)
class Recipe:
    """A recipe and what its leading comment says of it.

    Attributes:
        name: For instance "vae/fashion".
        path: The YAML file.
        summary: One line.
        cost: What it was measured to cost and reach, or "".
    """

    name: str
    path: Path
    summary: str
    cost: str


def configs_folder() -> Path:
    """Return the folder of the recipes, in an installed package and in a checkout alike."""
    package = Path(__file__).parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def recipes() -> Iterator[Recipe]:
    """Yield what ships: experiments by name, then the extras that go with them."""
    folder = configs_folder()
    for path in sorted(folder.rglob("*.yaml"), key=lambda path: (path.parent.name == "extras", path)):
        comment = [line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#")]
        cost = next((line.removeprefix("Measured: ") for line in comment if line.startswith("Measured: ")), "")
        yield Recipe(path.relative_to(folder).with_suffix("").as_posix(), path, comment[0] if comment else "", cost)


def resolve(name: str, option: str = "--config") -> Path:
    """Return the YAML file that ``name``, given to ``option``, means: a file, or a recipe that ships.

    Raises:
        FileNotFoundError: If it is neither; the message has the nearest names.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = {recipe.name: recipe.path for recipe in recipes()}
    if (found := shipped.get(name.removesuffix(".yaml"))) is not None:
        return found
    nearest = difflib.get_close_matches(name, shipped, n=3, cutoff=0.4) or list(shipped)
    raise FileNotFoundError(f"{option} {name}: neither a file nor a recipe; the nearest are {', '.join(nearest)}")
