"""Every block of the README and of the families' pages runs, on small settings where a whole run would take minutes."""

import re
import shlex
from pathlib import Path

import pytest
import wandb
from PIL import Image

from lit_generative import ImageDataModule
from lit_generative.cli import COMMANDS, main
from lit_generative.recipes import recipes

ROOT = Path(__file__).parent.parent
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
README = PAGES[ROOT / "README.md"]
BLOCKS = [
    block
    for text in PAGES.values()
    for block in re.findall(r"(?:<!-- (.*?) -->\n)?```(\w+)\n(.*?)```", text, re.DOTALL)
]
SECTIONS = {
    f"{path.stem}: {title}": text
    for path, page in PAGES.items()
    for title, text in re.findall(r"^##? (.*?)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
}
FEW = "--evaluation.num_samples 50 --evaluation.num_real 50"
ONCE = "--trainer.limit_val_batches 1 --grid.num_samples 4"
SHORT = f"--trainer.max_epochs 1 --trainer.limit_train_batches 2 {ONCE} {FEW}"
SHORT_TIME = f"--budget.minutes 0.01 --budget.validations 1 --budget.evaluations 1 {ONCE} {FEW}"
SMALL = {
    "fit": SHORT,
    "test": f"--trainer.limit_test_batches 1 --likelihood.num_images 4 --likelihood.evaluations 4 {FEW}",
    "extractor": "--epochs 1",
    "latent": "--num_images 2 --steps 3 --max_images 100",
    "evaluate": "--num_samples 50 --extractor random",
    "compare": "--num_samples 50 --evaluation.num_real 50 --likelihood_images 4 --evaluations 4 --curve 2"
    " --data ImageDataModule --data.subset 600",
}
SMALL_SET = "--data.subset 300"
OTHER_DATA = ("--data.dataset", "gan/ring")
SMALL_TRAINING = "--minutes 0.01 --seeds 1"
NEEDS_HARDWARE = ("extras/gpu", "extras/multinode")  # test_extras.py parses these


def block(label: str) -> str:
    return next(text for name, _, text in BLOCKS if name == label)


def commands(section: str) -> list[str]:
    """Return the lines of a section that run this package's command."""
    blocks = re.findall(r"```bash\n(.*?)```", SECTIONS[section], re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("lit-generative ")]


def run(line: str, capsys: pytest.CaptureFixture) -> None:
    """Run a line on small settings, after what it needs of earlier sections."""
    for recipe, version in re.findall(r"runs/(\S+?)/version_(\d)", line):
        while not Path(f"runs/{recipe}/version_{version}").exists():
            run(f"lit-generative fit --config {recipe}", capsys)
    arguments = shlex.split(line)[1:]
    small = SMALL.get(arguments[0], "") + (f" {SMALL_TRAINING}" if "--recipes" in arguments else "")
    if arguments[0] == "fit" and "--minutes" in arguments:
        small = SHORT_TIME
    if arguments[0] == "fit" and not any(other in line for other in OTHER_DATA):
        small += f" {SMALL_SET}"
    assert main([*arguments, *shlex.split(small)]) == 0, (line, capsys.readouterr().err)


@pytest.fixture
def users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with what the README's commands find there: images and classes of one's own."""
    folder = tmp_path / "readme"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    for module in ("my_models.py", "my_gans.py", "my_diffusion.py"):
        (folder / module).write_text(block(module))
    images = next(iter(ImageDataModule(batch_size=24).loader("test")))["image"]
    for i, image in enumerate(images):
        path = folder / "path/to/folder" / ("left", "right")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(((image[0] + 1) * 127.5).byte().numpy()).resize((64, 70)).convert("RGB").save(path)
    return folder


@pytest.mark.parametrize("section", [section for section in SECTIONS if commands(section)])
def test_every_command_of_the_pages_runs(users_folder: Path, capsys: pytest.CaptureFixture, section: str) -> None:
    for line in commands(section):
        if not any(name in line for name in NEEDS_HARDWARE):
            run(line, capsys)
    if "grid.png" in SECTIONS[section]:
        assert Image.open("grid.png").mode == "L"
    wandb.finish()  # or the next test's logger would go on with this run


def test_the_python_of_the_readme_runs(users_folder: Path) -> None:
    code = block("python").replace("max_epochs=3", "max_epochs=1, limit_train_batches=2, limit_val_batches=1")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["images"].shape == (16, 1, 28, 28)
    assert type(names["model"]).__name__ == "BetaVAE"


def test_the_python_for_diffusion_models_runs(users_folder: Path, capsys: pytest.CaptureFixture) -> None:
    run("lit-generative fit --config diffusion/fashion", capsys)
    names: dict = {}
    exec(compile(block("python diffusion"), "README.md", "exec"), names)
    shapes = {name: tuple(names[name].shape) for name in ("images", "repainted", "similar")}
    assert set(shapes.values()) == {(16, 1, 28, 28)}, shapes
    assert [tuple(x_t.shape) for x_t in names["way"]] == [(4, 1, 28, 28)] * 11
    assert names["repainted"][:, :, :14].equal(names["images"][:, :, :14])


def test_the_python_of_an_evaluation_runs(users_folder: Path) -> None:
    names: dict = {}
    exec(compile(block("python evaluation"), "evaluation.md", "exec"), names)
    assert names["found"].runs[0].metrics["memorised"] == 1  # it is compared with itself


def test_the_set_up_commands_are_those_of_a_fresh_clone() -> None:
    assert "pip install . && .venv/bin/lit-generative fit --config vae/fashion" in block("main job")
    assert "pip install -e '.[test]' && .venv/bin/pytest" in block("tests")


def test_the_readme_is_short_and_the_pages_know_every_recipe_and_link_to_files_that_exist() -> None:
    assert len(README.splitlines()) <= 260
    for recipe in recipes():
        assert any(recipe.name in page for page in PAGES.values())
    for path, page in PAGES.items():
        for link in re.findall(r"(?:\]\(|src=\")(?!https?:)([^)#\"]+)", page):
            assert (path.parent / link).exists(), link
    shown = {line.split()[1] for section in SECTIONS for line in commands(section)}
    assert COMMANDS.keys() - {"validate", "predict"} <= shown
