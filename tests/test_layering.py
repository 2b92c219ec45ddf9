"""Imports go down only, so that a file can be read without those above it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lit_generative

PACKAGE = Path(lit_generative.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "configs" not in path.parts)
FAMILIES = {"vae", "gan", "diffusion"}

# description | nn and maths | core | data, evaluation, callbacks | a family's module | report and command line
LAYERS = {
    "description": 0,
    "files": 0,
    "interpolation": 0,
    "nn": 0,
    "optim": 0,
    "pictures": 0,
    "recipes": 0,
    "checkpoints": 1,
    "core": 1,
    "manual": 1,
    "sampling": 1,
    "loggers": 2,
    "data": 2,
    "evaluation": 2,
    "callbacks": 2,
    "report": 4,
    "commands": 4,
    "cli": 4,
    "__init__": 4,
    "__main__": 4,
}
# the files of a family that are not maths
GLUE = ("module", "generation", "iwae", "latent", "vq", "ladder", "__init__")


def module_name(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")


def layer(module: str) -> int:
    top, _, rest = module.partition(".")
    if top in FAMILIES:
        return 3 if rest in ("", *GLUE) else 0
    assert top in LAYERS, f"{module}: say in LAYERS, and in the design, which layer it is in"
    return LAYERS[top]


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


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_down_only(path: Path) -> None:
    module = module_name(path)
    above = {name for name in own_imports(path) if layer(name) > layer(module)}
    assert not above, f"{module} imports {above}, which are above it"


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "nn"], ids=module_name)
def test_networks_need_torch_alone(path: Path) -> None:
    others = {name.partition(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
    assert others <= {"torch", "lit_generative"}
    assert all(name == "description" or name.startswith("nn") for name in own_imports(path))


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parent.name in FAMILIES and p.stem not in GLUE], ids=module_name
)
def test_maths_needs_torch_alone(path: Path) -> None:
    others = {name.partition(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
    assert others <= {"torch", "lit_generative"}
    allowed = ("description", path.parent.name)
    assert all(name.partition(".")[0] in allowed for name in own_imports(path))


@pytest.mark.parametrize("family", sorted(FAMILIES & {path.parent.name for path in PACKAGE.glob("*/module.py")}))
def test_a_family_knows_its_maths_and_the_core(family: str) -> None:
    allowed = {"core", "sampling", "manual", "description", "interpolation", family}
    for path in (path for path in (PACKAGE / family).glob("*.py") if path.stem in GLUE):
        assert {name.partition(".")[0] for name in own_imports(path)} <= allowed


@pytest.mark.parametrize("part", ["data", "evaluation", "callbacks"])
def test_what_serves_all_families_knows_none(part: str) -> None:
    for path in (PACKAGE / part).rglob("*.py"):
        known = {name.partition(".")[0] for name in own_imports(path)}
        assert not known & (FAMILIES | {"commands", "cli", "report"}), path


def test_the_core_needs_lightning_and_torch_alone() -> None:
    for name in ("core", "sampling", "manual", "checkpoints", "description"):
        others = {module.partition(".")[0] for module in imports(PACKAGE / f"{name}.py")} - set(sys.stdlib_module_names)
        assert others <= {"torch", "lightning", "lit_generative"}
    assert "lightning" not in {name.partition(".")[0] for name in imports(PACKAGE / "description.py")}


def test_an_upward_import_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lit_generative" / "nn").mkdir(parents=True)
    bad = tmp_path / "lit_generative" / "nn" / "bad.py"
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path / "lit_generative")
    (tmp_path / "lit_generative" / "core.py").touch()
    absolute, relative = "from lit_generative.core import X", "from ..core import X"
    for line in (absolute, relative, "from .. import core", "import lit_generative.core"):
        bad.write_text(line)
        assert own_imports(bad) == {"core"}, line
