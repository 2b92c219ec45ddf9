"""Every YAML file that ships is read, built, and short."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from known_models import MODELS

from lit_generative import DDPM, GenerativeModule, ImageDataModule
from lit_generative.cli import main
from lit_generative.recipes import configs_folder, recipes, resolve
from lit_generative.training import cli as trainer
from lit_generative.training.parser import resolve_recipes, take_option

SHIPPED = {recipe.name: recipe for recipe in recipes()}
EXPERIMENTS = [name for name in SHIPPED if not name.startswith("extras/")]
# where the images would have to be downloaded, others of the same shape
LOCAL = ["--data.dataset", "fashion-mnist", "--data.image_size", "32", "--data.channels", "3"]
CPU = ["--trainer.accelerator", "cpu"]
OF_LATENTS = [name for name in EXPERIMENTS if "latents:" in SHIPPED[name].path.read_text()]
DOWNLOADED = [name for name in EXPERIMENTS if "dataset: uoft-cs/cifar10" in SHIPPED[name].path.read_text()]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Build what a command line says, and do not run it."""
    found: list[Any] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trainer.TrainerCLI, "_run_subcommand", lambda cli, command: found.append(cli))
    return found


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a small autoencoder of the embedded images."""
    path = tmp_path_factory.mktemp("autoencoder") / "last.ckpt"
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = L.Trainer(max_steps=1, limit_val_batches=0, accelerator="cpu", **quiet)
    trainer.fit(MODELS["spatial_vae"](), datamodule=ImageDataModule(subset=50, batch_size=25))
    trainer.save_checkpoint(path)
    return path


def test_there_are_recipes() -> None:
    assert {"vae/fashion", "vae/mlp"} <= SHIPPED.keys()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_is_short_and_says_what_it_is(name: str) -> None:
    lines = SHIPPED[name].path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert SHIPPED[name].summary == lines[0].removeprefix("# ")
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_built(name: str, built: list[Any], autoencoder: Path) -> None:
    images = LOCAL if name in DOWNLOADED else []
    first_stage = ["--model.latents.autoencoder", str(autoencoder)] if name in OF_LATENTS else []
    assert main(["fit", "--config", name, *CPU, *images, *first_stage]) == 0
    (cli,) = built
    if isinstance(cli.model, DDPM):
        cli.model.sampler.steps = 2
    assert isinstance(cli.model, GenerativeModule)
    assert Path(cli.trainer.log_dir).parts[:3] == ("runs", *name.split("/"))
    x = torch.zeros(2, *cli.datamodule.image_shape)
    label = torch.zeros(2, dtype=torch.long)
    y = None if cli.model.condition is None else cli.model.condition.of({"image": x, "label": label})
    assert cli.model.sample(2, y).shape == (2, *cli.datamodule.image_shape)
    assert torch.isfinite(cli.model.losses(x, y)["loss"]).all()


@pytest.mark.parametrize(
    ("name", "smaller"), [("diffusion/cifar10", ["widths=[32,32]"]), ("diffusion/dit", ["depth=1", "dim=48"])]
)
def test_a_large_experiment_runs_two_batches(
    name: str,
    smaller: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["--data.batch_size", "2", "--data.subset", "10", "--trainer.max_steps", "2", "--grid.num_samples", "2"]
    short += ["--model.sampler.init_args.steps", "2", "--evaluation.num_samples", "6", "--evaluation.num_real", "10"]
    network = [f"--model.network.init_args.{option}" for option in smaller]
    assert main(["fit", "--config", name, *CPU, *LOCAL, *short, *network]) == 0
    assert "DDPM after 4 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "name", "options"),
    [
        # with the recipe's 50,000 samples of 1,000 evaluations each, and pictures, it would not end
        (
            "fit",
            "diffusion/cifar10",
            [*LOCAL, "--model.network.init_args.widths=[32,32]", "--trainer.callbacks+=DenoisingPictures"],
        ),
        ("fit", "gan/fashion", []),
        ("fit", "vae/fashion", []),
        ("test", "vae/mlp", []),
        ("predict", "vae/mlp", []),
    ],
)
def test_a_dry_run_draws_nothing_and_leaves_nothing(
    command: str,
    name: str,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["--trainer.fast_dev_run", "2", "--data.batch_size", "2", "--data.subset", "40", *CPU]
    assert main([command, "--config", name, *short, *options]) == 0
    printed = capsys.readouterr().out
    assert "importance_weighted" not in printed
    if command != "predict":
        assert "quality of samples was not measured: this is a dry run" in printed
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_recipe_is_meant_by_its_name_or_its_file(tmp_path: Path) -> None:
    shipped = configs_folder() / "vae" / "mlp.yaml"
    assert resolve("vae/mlp") == resolve("vae/mlp.yaml") == resolve(str(shipped)) == shipped
    (tmp_path / "own.yaml").touch()
    assert resolve(str(tmp_path / "own.yaml")) == tmp_path / "own.yaml"
    with pytest.raises(FileNotFoundError, match=r"--config vae/mpl: neither a file nor .*are vae/mlp"):
        resolve("vae/mpl")


def test_recipes_are_resolved_wherever_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").touch()
    configs = configs_folder()
    arguments = ["--config", "vae/mlp", "--config=extras/debug", "-c", "own.yaml", "--seed_everything", "1"]
    resolved, names = resolve_recipes(arguments)
    assert resolved == [
        *("--config", str(configs / "vae/mlp.yaml"), f"--config={configs / 'extras/debug.yaml'}"),
        *("-c", "own.yaml", "--seed_everything", "1"),
    ]
    assert names == ["vae/mlp", "own"]


def test_the_last_value_of_an_option_counts() -> None:
    assert take_option(["--a", "1", "--a=2", "--b", "3"], "--a") == "2"
    assert take_option(["--a"], "--a") == ""
    assert take_option(["--ab", "1"], "--a") is None
