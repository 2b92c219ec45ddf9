"""A latent model whose autoencoder is a recipe: it is trained first, within the same budget."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_generative import GenerativeModule
from lit_generative.callbacks import TrainingClock
from lit_generative.callbacks.clock import in_all
from lit_generative.cli import main
from lit_generative.training.first_stage import SHARE, is_recipe, seconds_of

SMALL = [
    *("--data.subset", "60", "--data.batch_size", "20", "--trainer.limit_val_batches", "1", "--grid.num_samples", "4"),
    *("--model.network.widths", "[8]", "--model.network.groups", "4", "--model.network.head_dim", "8"),
    *("--model.sampler.steps", "2", "--evaluation.num_samples", "20", "--evaluation.num_real", "20"),
    *("--trainer.enable_progress_bar", "false", "--trainer.precision", "32-true", "--trainer.accelerator", "cpu"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of both stages, of 200 images together."""
    root = tmp_path_factory.mktemp("stages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("LIT_GENERATIVE_CACHE", str(root / "cache"))
        assert main(["fit", "--config", "diffusion/latent", "--images", "200", *SMALL]) == 0
    return root / "runs"


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def test_both_stages_have_their_share_of_the_budget(runs: Path) -> None:
    first, second = (
        load(runs / name / "version_0/checkpoints/last.ckpt") for name in ("vae/autoencoder", "diffusion/latent")
    )
    seen = [checkpoint["lit_generative"]["state"]["images_seen"] for checkpoint in (first, second)]
    assert seen[0] == pytest.approx(200 * SHARE, abs=32)
    assert seen[1] == pytest.approx(200 * (1 - SHARE), abs=32)


def test_the_second_stage_counts_the_minutes_of_the_first(runs: Path) -> None:
    first = runs / "vae/autoencoder/version_0/checkpoints/last.ckpt"
    clock = load(runs / "diffusion/latent/version_0/checkpoints/last.ckpt")["callbacks"][TrainingClock.__name__]
    assert tuple(clock["before"]) == seconds_of(first)
    assert in_all(clock)[0] == pytest.approx(clock["seconds"] + seconds_of(first)[0])
    assert seconds_of(first)[0] > 0


def test_the_autoencoder_is_that_of_the_first_run(runs: Path) -> None:
    first = GenerativeModule.load_from_checkpoint(runs / "vae/autoencoder/version_0/checkpoints/last.ckpt")
    second = GenerativeModule.load_from_checkpoint(runs / "diffusion/latent/version_0/checkpoints/last.ckpt")
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.latents.autoencoder.state_dict()[name]), name
    config = yaml.safe_load((runs / "diffusion/latent/version_0/config.yaml").read_text())
    assert config["model"]["init_args"]["latents"]["init_args"]["autoencoder"].endswith("last.ckpt")


def test_a_run_that_goes_on_trains_no_other_autoencoder(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs.parent)
    last = runs / "diffusion/latent/version_0/checkpoints/last.ckpt"
    before = load(last)
    given = ["--config", "diffusion/latent", "--images", "300", "--ckpt_path", str(last)]
    assert main(["fit", *given, *SMALL]) == 0
    assert not (runs / "vae/autoencoder/version_1").exists()
    after = load(last)
    assert after["global_step"] > before["global_step"]
    own = {name: value for name, value in before["state_dict"].items() if "autoencoder" in name}
    assert all(torch.equal(value, after["state_dict"][name]) for name, value in own.items())


@pytest.mark.parametrize("option", [("--trainer.devices", "2"), ("--trainer.fast_dev_run", "true")])
def test_what_a_first_stage_cannot_do_is_refused(
    option: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", "diffusion/latent", *SMALL, *option]) != 0
    assert "--model.latents.autoencoder CKPT" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_only_recipes_that_ship_are_trained_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_recipe("vae/autoencoder")
    assert not is_recipe("runs/vae/autoencoder/last.ckpt")
    assert not is_recipe(None)
    Path("vae").mkdir()
    Path("vae/autoencoder").touch()
    assert not is_recipe("vae/autoencoder")  # a file of that name
