"""Two processes train the model that one process trains on their joined batches."""

import functools
import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from noiseless import NoiselessVAE

from lit_generative import Evaluator, GenerativeModule, ImageDataModule
from lit_generative.callbacks import EMA, Evaluate, SampleGrid
from lit_generative.nn import ConvDecoder, ConvEncoder
from lit_generative.vae import GaussianLikelihood


class Report(L.Callback):
    """Writes down what each process ends with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        found = {
            "weights": pl_module.state_dict(),
            "images_seen": pl_module.images_seen,
            "step": trainer.global_step,
            "seed": torch.initial_seed(),
            "val_loss": trainer.callback_metrics["val/loss"],
        }
        torch.save(found, self.folder / f"{trainer.global_rank}.pt")


def build() -> NoiselessVAE:
    torch.manual_seed(0)
    encoder, decoder = (cls((1, 28, 28), 4, widths=(8, 16)) for cls in (ConvEncoder, ConvDecoder))
    return NoiselessVAE(
        encoder, decoder, GaussianLikelihood(), 4, optimizer=functools.partial(torch.optim.SGD, lr=1e-5)
    )


def train(folder: Path, devices: int, batch_size: int) -> None:
    evaluator = Evaluator(num_samples=40, num_real=60, batch_size=10, cache_dir=str(folder / "cache"))
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=devices,
        strategy="ddp_spawn" if devices > 1 else "auto",
        max_epochs=2,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        callbacks=[Report(folder), EMA(0.5), SampleGrid(4), Evaluate(evaluator)],
        **options,
    ).fit(build(), datamodule=ImageDataModule(subset=120, batch_size=batch_size, random_flip=True))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Train on one process and on two; return the folder of the latter, and what three processes ended with."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    train(one, devices=1, batch_size=20)
    train(two, devices=2, batch_size=10)
    return two, [torch.load(path, weights_only=True) for path in (one / "0.pt", two / "0.pt", two / "1.pt")]


def test_both_processes_have_the_weights_of_one(found: tuple[Path, list[dict[str, Any]]]) -> None:
    _, (one, *both) = found
    moved = max((one["weights"][name] - value).abs().max() for name, value in build().state_dict().items())
    assert moved > 1e-2
    for process in both:
        torch.testing.assert_close(process["weights"], one["weights"], rtol=1e-5, atol=1e-5)
    for name, value in both[0]["weights"].items():
        assert torch.equal(value, both[1]["weights"][name]), name


def test_the_images_of_both_count(found: tuple[Path, list[dict[str, Any]]]) -> None:
    assert [(process["images_seen"], process["step"]) for process in found[1]] == [(240, 12)] * 3


def test_validation_is_over_the_images_of_both(found: tuple[Path, list[dict[str, Any]]]) -> None:
    _, (one, *both) = found
    for process in both:
        torch.testing.assert_close(process["val_loss"], one["val_loss"], rtol=1e-5, atol=0)


def test_each_process_draws_its_own_noise(found: tuple[Path, list[dict[str, Any]]]) -> None:
    _, (_, *both) = found
    assert both[0]["seed"] != both[1]["seed"]


def test_both_evaluate_and_one_reports(found: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = found
    (record,) = json.loads((folder / "evaluation.json").read_text())
    one = json.loads((folder.parent / "one0" / "evaluation.json").read_text())[0]
    assert record["metrics"] == pytest.approx(one["metrics"], rel=1e-3, abs=1e-3)
    assert record["images_seen"] == 240
    assert len(list((folder / "grids").iterdir())) == 2
