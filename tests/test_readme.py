"""Every block of the README runs, on small settings where a whole run would take minutes."""

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
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"(?:<!-- (.*?) -->\n)?```(\w+)\n(.*?)```", README, re.DOTALL)
SMALL = {
    "fit": "--trainer.max_epochs 1 --trainer.limit_train_batches 2 --trainer.limit_val_batches 1 --grid.num_samples 4",
    "test": "--trainer.limit_test_batches 1 --likelihood.num_images 4 --likelihood.evaluations 4",
    "extractor": "--epochs 1",
}
NEEDS_HARDWARE = ("extras/gpu", "extras/multinode")  # test_extras.py parses these


def block(label: str) -> str:
    return next(text for name, _, text in BLOCKS if name == label)


def commands() -> list[str]:
    """Return the lines of the README that run this package's command."""
    lines = [line for _, language, text in BLOCKS if language == "bash" for line in text.splitlines()]
    return [line for line in lines if line.startswith("lit-generative ")]


@pytest.fixture(scope="module")
def users_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with what the README's commands find there: images and classes of one's own."""
    folder = tmp_path_factory.mktemp("readme")
    for module in ("my_models.py", "my_gans.py", "my_diffusion.py"):
        (folder / module).write_text(block(module))
    images = next(iter(ImageDataModule(batch_size=24).loader("test")))["image"]
    for i, image in enumerate(images):
        path = folder / "path/to/folder" / ("left", "right")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(((image[0] + 1) * 127.5).byte().numpy()).resize((64, 70)).convert("RGB").save(path)
    return folder


def test_every_command_of_the_readme_runs_in_turn(
    users_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(users_folder)
    assert main(shlex.split(f"fit --config vae/fashion {small('fit')}")) == 0  # the first command, which sets up too
    assert {line.split()[1] for line in commands()} >= {"fit", "test", "sample", "extractor", "recipes"}
    for line in commands():
        if not any(name in line for name in NEEDS_HARDWARE):
            arguments = shlex.split(line)[1:]
            assert main([*arguments, *shlex.split(small(arguments[0]))]) == 0, (line, capsys.readouterr().err)
    assert Image.open("grid.png").mode == "L"
    wandb.finish()  # or the next test's logger would go on with this run


def small(command: str) -> str:
    evaluation = " --evaluation.num_samples 50 --evaluation.num_real 50" if command in ("fit", "test") else ""
    return SMALL.get(command, "") + evaluation


def test_the_python_of_the_readme_runs(users_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(users_folder)
    monkeypatch.syspath_prepend(users_folder)
    code = block("python").replace("max_epochs=3", "max_epochs=1, limit_train_batches=2, limit_val_batches=1")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["images"].shape == (16, 1, 28, 28)
    assert type(names["model"]).__name__ == "BetaVAE"


def test_the_python_for_diffusion_models_runs(users_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(users_folder)
    if not Path("runs/diffusion/fashion/version_0/checkpoints/last.ckpt").exists():  # the commands' test was not run
        assert main(shlex.split(f"fit --config diffusion/fashion {small('fit')}")) == 0
    names: dict = {}
    exec(compile(block("python diffusion"), "README.md", "exec"), names)
    shapes = {name: tuple(names[name].shape) for name in ("images", "repainted", "similar")}
    assert set(shapes.values()) == {(16, 1, 28, 28)}, shapes
    assert [tuple(x_t.shape) for x_t in names["way"]] == [(4, 1, 28, 28)] * 11
    assert names["repainted"][:, :, :14].equal(names["images"][:, :, :14])


def test_the_set_up_commands_are_those_of_a_fresh_clone() -> None:
    assert "pip install . && .venv/bin/lit-generative fit --config vae/fashion" in block("main job")
    assert "pip install -e '.[test]' && .venv/bin/pytest" in block("tests")


def test_the_readme_knows_every_recipe_and_links_to_files_that_exist() -> None:
    for recipe in recipes():
        assert recipe.name in README
    for link in re.findall(r"(?:\]\(|src=\")(?!https?:)([^)#\"]+)", README):
        assert (ROOT / link).exists(), link
    assert COMMANDS.keys() - {"validate", "predict"} <= {line.split()[1] for line in commands()}
