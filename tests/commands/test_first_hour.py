"""What a user meets in the first hour: help, recipes, versions, and options that are spelled as one would guess."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import lit_generative as package
from lit_generative.labels import class_indices, class_suffix
from lit_generative.recipes import recipes
from lit_generative.training.spellings import SHORT, spelled

NAMES = ["T-shirt/top", "Ankle boot", "3", "Bag"]


def test_the_version_and_the_recipes_need_no_torch(tmp_path: Path) -> None:
    heavy = {"torch", "lightning", "jsonargparse", "numpy", "rich"}
    call = (
        "import sys\nfrom lit_generative.cli import main\n"
        "assert main(['--version']) == main(['--help']) == main(['recipes']) == main(['recipes', 'vae']) == 0\n"
        f"assert not {heavy} & set(sys.modules), set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", call], capture_output=True, text=True, check=False, cwd=Path(package.__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"lit-generative {package.__version__}\n")


def test_recipes_are_a_line_each_by_family(lit_generative: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = lit_generative("recipes").out.splitlines()
    assert max(map(len, lines)) <= 100
    heading = ""
    listed = []
    for line in lines:
        heading = line if line.endswith(":") and not line.startswith(" ") else heading
        if line.startswith("  "):
            listed.append(line.split()[0])
            assert listed[-1].startswith(heading.removesuffix(":") + "/")
    assert listed == [recipe.name for recipe in recipes()]


def test_one_recipe_is_printed_whole(lit_generative: Callable) -> None:
    (recipe,) = (recipe for recipe in recipes() if recipe.name == "vae/mlp")
    assert lit_generative("recipes", "vae/mlp").out == recipe.path.read_text()


@pytest.mark.parametrize("command", ["fit", "test", "validate", "predict"])
def test_help_is_short_and_ours_comes_first(
    lit_generative: Callable, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    printed = lit_generative(command, "--help").out
    assert printed.count("\n") <= (145 if command == "fit" else 130)
    assert "--trainer.accelerator " not in printed
    assert "--evaluation.num_samples" in printed
    assert all(short in printed for short in SHORT[command] if short != "--max_epochs")
    of_lightning = lit_generative(command, "--trainer.help").out
    assert "--trainer.max_epochs" in of_lightning
    assert "--evaluation.num_samples NUM" not in of_lightning


def test_help_of_a_checkpoint_callback_and_of_classes_works(lit_generative: Callable) -> None:
    assert "--checkpoint.monitor" in lit_generative("fit", "--checkpoint.help").out
    assert "--model.latent_dim" in lit_generative("fit", "--model.help", "VAE").out
    assert "--encoder.hidden" in lit_generative("fit", "--config", "vae/mlp", "--model.encoder.help", "MLPEncoder").out
    assert "tensorboard" in lit_generative("fit", "--trainer.logger.help", "TensorBoardLogger").out


@pytest.mark.parametrize(
    ("command", "given", "expected"),
    [
        ("test", "a.ckpt --seed 3", "--ckpt_path=a.ckpt --seed_everything=3 --evaluation.seed=3 --likelihood.seed=3"),
        ("test", "--data.batch_size 4 a.ckpt", "--ckpt_path=a.ckpt --data.batch_size 4"),
        ("test", "--ckpt_path a.ckpt --num_samples=9", "--ckpt_path a.ckpt --evaluation.num_samples=9"),
        ("validate", "a.ckpt --device cuda:1", "--ckpt_path=a.ckpt --trainer.accelerator=cuda --trainer.devices=[1]"),
        ("fit", "--device cpu --epochs 3", "--trainer.accelerator=cpu --trainer.devices=1 --trainer.max_epochs=3"),
        ("fit", "--output runs --batch_size 8", "--trainer.default_root_dir=runs --data.batch_size=8"),
        ("fit", "--minutes 10 --images 2M", "--budget.minutes=10 --budget.images=2M"),
        ("sample", "--evaluation.num_samples 4 a.ckpt", "--ckpt_path=a.ckpt --num_samples=4"),
        ("sample", "a.ckpt --labels -1", "--ckpt_path=a.ckpt --labels -1"),
        ("compare", "a b --likelihood.num_images 9 --curve 5 10", "a b --likelihood_images=9 --curve 5 10"),
        ("extractor", "--batch_size 9 --max_epochs 2", "--data.batch_size=9 --epochs=2"),
    ],
)
def test_short_options_stand_for_long_ones(command: str, given: str, expected: str) -> None:
    assert spelled(command, given.split()) == expected.split()


def test_a_checkpoint_is_taken_by_position_and_by_option(
    lit_generative: Callable, conditional: Path, tmp_path: Path
) -> None:
    options = ["--num_samples", "3", "--seed", "1", "--labels", "sneaker,3"]
    for place, checkpoint in {"a": [str(conditional)], "b": ["--ckpt_path", str(conditional)]}.items():
        outcome = lit_generative("sample", *options, *checkpoint, "--output", place)
        assert outcome.status == 0, outcome.err
    a, b = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab")
    assert a == b
    assert sorted(a) == [
        "sample_000000_class_7_sneaker.png",
        "sample_000001_class_3_dress.png",
        "sample_000002_class_7_sneaker.png",
    ]
    validated = lit_generative(
        "validate", str(conditional), "--output", "elsewhere", "--trainer.limit_val_batches", "1"
    )
    assert validated.status == 0, validated.err
    assert validated.folder.parts[0] == "elsewhere"


def test_predicted_files_say_the_class(lit_generative: Callable, conditional: Path) -> None:
    options = ["--batch_size", "10", "--trainer.limit_predict_batches", "1"]
    outcome = lit_generative("predict", str(conditional), *options)
    assert outcome.status == 0, outcome.err
    names = [path.name for path in (Path.cwd() / outcome.folder / "samples").iterdir()]
    assert len(names) == 10
    assert all("_class_" in name for name in names)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (1, [1]),
        ("bag", [3]),
        ("Bag", [3]),
        ("ankle_boot", [1]),
        ("t-shirt top", [0]),
        (["bag", 0], [3, 0]),
        ("bag,0", [3, 0]),
        ("[bag, ankle boot]", [3, 1]),
        ("3", [3]),  # a number is an index, even if another class is called so
        (None, None),
    ],
)
def test_classes_by_index_and_name(labels: object, expected: list[int] | None) -> None:
    assert class_indices(labels, 4, NAMES) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", [4, -1, "boot", "", [], ["bag", "bags"], "4"])
def test_what_is_no_class_is_refused_with_those_that_are(labels: object) -> None:
    with pytest.raises(ValueError, match=r"labels=.*0 T-shirt/top, 1 Ankle boot, 2 3, 3 Bag"):
        class_indices(labels, 4, NAMES)  # type: ignore[arg-type]


def test_without_names_indices_are_asked_for() -> None:
    assert class_indices("1,0", 3, None) == [1, 0]
    with pytest.raises(ValueError, match="labels=bag: there is no such class, give indices from 0 to 2"):
        class_indices("bag", 3, None)
    assert class_indices("1", 3, ["too", "few"]) == [1]


@pytest.mark.parametrize(
    ("names", "suffix"),
    [
        (None, "_class_1"),
        (["a", "Ankle boot/../x"], "_class_1_ankle-boot-x"),
        (["a", "1"], "_class_1"),
        (["a", "/"], "_class_1"),
    ],
)
def test_names_of_files_say_the_class_and_name_no_folder(names: list[str] | None, suffix: str) -> None:
    assert class_suffix(1, names) == suffix
