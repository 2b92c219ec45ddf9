"""An autoencoder and then a diffusion model of its latents, on the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from running import TINY, Outcome, run

from lit_generative import GenerativeModule
from lit_generative.pictures import save_png

Run = Callable[..., Outcome]
QUICK = [*TINY, "--evaluate.every_n_epochs", "2", "--trainer.precision", "32-true"]
SMALL = ["--model.network.widths", "[8, 8]", "--model.network.groups", "4", "--model.network.head_dim", "8"]


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a spatial autoencoder of the embedded images."""
    root = tmp_path_factory.mktemp("autoencoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("LIT_GENERATIVE_CACHE", str(root / "cache"))
        sizes = ["--model.encoder.widths", "[8, 12]", "--model.decoder.widths", "[8, 12]"]
        outcome = run("fit", "--config", "vae/autoencoder", *QUICK, *sizes)
    assert outcome.status == 0, outcome.err
    return root / outcome.folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="session")
def whole(autoencoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a diffusion model of its latents, in a folder from which the autoencoder cannot be found."""
    root = tmp_path_factory.mktemp("latent")
    given = ["--model.latents.autoencoder", str(autoencoder), "--model.sampler.steps", "3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("LIT_GENERATIVE_CACHE", str(root / "cache"))
        outcome = run("fit", "--config", "diffusion/latent", *QUICK, *SMALL, *given)
    assert outcome.status == 0, outcome.err
    return root / outcome.folder / "checkpoints" / "last.ckpt"


def test_the_network_is_made_for_the_latents(whole: Path) -> None:
    model = GenerativeModule.load_from_checkpoint(whole)
    assert model.network._init_args["image_shape"] == (4, 7, 7)
    assert model.latents.is_fitted
    assert str(whole.parents[6]) not in str(model.latents._init_args)  # the autoencoder itself, not where it was


def test_the_checkpoint_draws_is_tested_and_goes_on_without_the_autoencoders(
    whole: Path, lit_generative: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = lit_generative("sample", str(whole), "--num_samples", "4", "--output", "drawn")
    assert drawn.status == 0, drawn.err
    tested = lit_generative(
        "test", str(whole), *TINY[:4], "--evaluation.num_samples", "60", "--evaluation.num_real", "60"
    )
    assert tested.status == 0, tested.err
    assert "kernel_distance" in tested.out
    shown = lit_generative("latent", str(whole), "--output", "shown", "--num_images", "2", "--steps", "3", *TINY[:2])
    assert shown.status == 0, shown.err
    assert Path("shown/encoded_and_decoded.png").is_file()
    assert Path("shown/interpolations_of_images.png").is_file()
    save_png(torch.zeros(1, 28, 28), Path("gray.png"))
    edited = lit_generative("edit", str(whole), "gray.png", "--start", "0.5", "--output", "edited.png")
    assert edited.status == 0, edited.err
    configuration = whole.parents[1] / "config.yaml"
    gone_on = lit_generative(
        "fit", "--config", str(configuration), "--ckpt_path", str(whole), "--trainer.max_epochs", "3"
    )
    assert gone_on.status == 0, gone_on.err
    assert torch.load(gone_on.folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2


def test_a_bad_autoencoder_is_one_sentence(lit_generative: Run) -> None:
    outcome = lit_generative("fit", "--config", "diffusion/latent", "--model.latents.autoencoder", "nowhere.ckpt")
    assert outcome.status != 0
    assert outcome.err == "lit-generative: error: checkpoint nowhere.ckpt: there is no such file\n"
    assert not Path("runs").exists()
