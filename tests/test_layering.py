"""The rooms are in a total order and imports go down it, so that a file can be read without those above it."""

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lit_generative

PACKAGE = Path(lit_generative.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "configs" not in path.parts)

# from the ground up; a room imports itself and those before it (CONTRIBUTING.md shows it as the map)
ROOMS = (
    *("checks", "description", "devices", "files", "numerics", "processes", "eight_bit", "interpolation", "pictures"),
    *("geometry", "labels", "finite", "recipes"),
    *("optim", "nn"),
    *("vae maths", "gan maths", "diffusion maths"),
    "contracts",
    *(
        "budgets",
        "calls",
        "agreement",
        "checkpoints",
        "resuming",
        "precision",
        "savable",
        "training_options",
        "optimisation",
    ),
    *("core", "sampling", "manual_optimization"),
    "data",
    "evaluation",
    "fine_tuning",
    *("loggers", "callbacks"),
    *("vae", "gan", "diffusion"),
    "training",
    "report",
    *("comparison", "latent_space", "drawing", "editing", "exporting"),
    *("commands", "cli", "__init__"),
)
FAMILIES = ("vae", "gan", "diffusion")
# the files of a family that know Lightning: its models, and its own callbacks
MODELS = {
    "vae": ("__init__", "module", "iwae", "vq", "ladder", "active_units", "adversary", "adversarial"),
    "gan": ("__init__", "module", "health"),
    "diffusion": (
        "__init__",
        "module",
        "image_edits",
        "latents",
        "diffusers_autoencoder",
        "denoising_pictures",
        "checkpoint_guidance",
    ),
}


def module_name(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")


def room(module: str) -> str:
    """Return the room of a file, given as for instance ``vae.likelihoods.base`` or, for a folder, ``vae``."""
    top, _, rest = module.partition(".")
    name = f"{top} maths" if top in FAMILIES and rest.partition(".")[0] not in ("", *MODELS[top]) else top
    assert name in ROOMS, f"{module}: say in ROOMS, and in the design, where its room is"
    return name


def imports(path: Path) -> Iterator[str]:
    """Yield each imported module: ours as ``lit_generative.…``, those of relative imports too."""
    package = ["lit_generative", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            is_package = module.startswith("lit_generative") and (PACKAGE.parent / module.replace(".", "/")).is_dir()
            yield from (f"{module}.{alias.name}" if is_package else module for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """Return what a file imports of this package, without the package's name and the names of classes."""
    found = {name.removeprefix("lit_generative.") for name in imports(path) if name.startswith("lit_generative")}
    return {name if is_module(name) else name.rpartition(".")[0] or "__init__" for name in found}


def is_module(name: str) -> bool:
    path = PACKAGE / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or path.is_dir()


def upward_imports(path: Path) -> set[str]:
    own = ROOMS.index(room(module_name(path)))
    return {name for name in own_imports(path) if ROOMS.index(room(name)) > own}


def files_imported(path: Path) -> set[str]:
    """Return the files that a file imports; a folder stands for its ``__init__``."""
    return {f"{name}.__init__" if (PACKAGE / name.replace(".", "/")).is_dir() else name for name in own_imports(path)}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_down_only(path: Path) -> None:
    above = upward_imports(path)
    assert not above, f"{module_name(path)} imports {above}, whose rooms are above its own"


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {
        module_name(path): files_imported(path) - {"__init__"} for path in FILES if module_name(path) != "__init__"
    }
    graphlib.TopologicalSorter(graph).prepare()  # a CycleError names the files


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "nn"], ids=module_name)
def test_networks_need_torch_alone(path: Path) -> None:
    others = {name.partition(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
    assert others <= {"torch", "lit_generative"}


@pytest.mark.parametrize("path", [p for p in FILES if room(module_name(p)).endswith(" maths")], ids=module_name)
def test_maths_needs_torch_alone(path: Path) -> None:
    others = {name.partition(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
    assert others <= {"torch", "zuko", "scipy", "lit_generative"}


def test_the_core_needs_lightning_and_torch_alone() -> None:
    for name in ("contracts", "resuming", "core", "sampling", "manual_optimization", "checkpoints", "description"):
        others = {module.partition(".")[0] for module in imports(PACKAGE / f"{name}.py")} - set(sys.stdlib_module_names)
        assert others <= {"torch", "lightning", "lit_generative"}
    assert "lightning" not in {name.partition(".")[0] for name in imports(PACKAGE / "description.py")}


def test_the_report_knows_no_model_no_data_and_no_torch() -> None:
    for path in (PACKAGE / "report").rglob("*.py"):
        assert {name.partition(".")[0] for name in own_imports(path)} <= {"report", "files"}
        assert not {"torch", "lightning"} & {name.partition(".")[0] for name in imports(path)}


def test_the_map_for_contributors_shows_the_order() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    places = [text.find(f"`{name.removesuffix(' maths')}") for name in ROOMS[:-1] if not name.endswith(" maths")]
    assert -1 not in places


@pytest.mark.parametrize(
    "line",
    ["from lit_generative.core import X", "from ..core import X", "from .. import core", "import lit_generative.core"],
)
def test_an_upward_import_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    (tmp_path / "lit_generative" / "nn").mkdir(parents=True)
    bad = tmp_path / "lit_generative" / "nn" / "bad.py"
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path / "lit_generative")
    (tmp_path / "lit_generative" / "core.py").touch()
    bad.write_text(line)
    assert upward_imports(bad) == {"core"}


def test_a_circle_would_be_found() -> None:
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter({"a": {"b"}, "b": {"c"}, "c": {"a"}}).prepare()
