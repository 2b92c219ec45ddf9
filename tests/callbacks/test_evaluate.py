import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lit_generative import VAE, Evaluator, ImageDataModule
from lit_generative.callbacks import EMA, Budget, Evaluate
from lit_generative.callbacks.run import append_record
from lit_generative.evaluation import Evaluation
from lit_generative.pictures import save_png

MakeTrainer = Callable[..., L.Trainer]


@pytest.fixture(scope="module")
def data() -> ImageDataModule:
    return ImageDataModule(subset=40, batch_size=20)


def small(**options: Any) -> Evaluator:
    return Evaluator(**({"num_samples": 30, "num_real": 50} | options))


@pytest.fixture
def folder(data: ImageDataModule, tmp_path: Path) -> Path:
    """A folder of 30 pictures, which are not known to be Fashion-MNIST."""
    for i, image in enumerate(next(iter(data.loader("test", batch_size=30)))["image"]):
        save_png(image, tmp_path / "pictures" / f"{i % 2}" / f"{i}.png")
    return tmp_path / "pictures"


def records(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "evaluation.json").read_text())


def test_a_run_is_evaluated_at_its_end_with_the_average(
    make_vae: Callable[..., VAE],
    make_trainer: MakeTrainer,
    data: ImageDataModule,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = make_vae()
    trainer = make_trainer(callbacks=[Evaluate(small()), EMA(0.9)], max_epochs=2, limit_val_batches=1)
    trainer.fit(model, datamodule=data)
    (record,) = records(tmp_path)
    assert (record["images_seen"], record["step"]) == (80, 4)
    assert record["losses"].keys() == {"val/loss", "val/nelbo", "val/nll", "val/kl"}
    assert record["metrics"]["frechet_distance"] > 0
    stamp = record["protocol"]
    assert (stamp["weights"], stamp["num_fake"], stamp["num_real"], stamp["split"]) == ("ema 0.9", 30, 50, "val")
    assert stamp["floor"].keys() >= {"frechet_distance"}
    printed = capsys.readouterr().out
    assert "VAE after 80 images" in printed
    assert f"{record['metrics']['frechet_distance']:.4g}" in printed


def test_evaluations_in_between_are_logged_and_kept(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    trainer = make_trainer(callbacks=[Evaluate(small(), every_n_epochs=2)], max_epochs=5, limit_val_batches=1)
    trainer.fit(make_vae(), datamodule=data)
    assert [record["images_seen"] for record in records(tmp_path)] == [80, 160, 200]
    logged = trainer.callback_metrics["evaluation/frechet_distance"].item()
    assert logged == pytest.approx(records(tmp_path)[1]["metrics"]["frechet_distance"])
    assert len({record["metrics"]["frechet_distance"] for record in records(tmp_path)}) == 3


def test_all_of_a_training_is_measured_on_validation_images_unless_test_is_asked_for(
    make_vae: Callable[..., VAE],
    make_trainer: MakeTrainer,
    data: ImageDataModule,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fit(**options: Any) -> str:
        callbacks = [Evaluate(small(), every_n_epochs=2, **options), EMA(0.9)]
        make_trainer(callbacks=callbacks, max_epochs=4, limit_val_batches=1).fit(make_vae(), datamodule=data)
        return capsys.readouterr().out

    printed = fit()
    found = [(record["images_seen"], record["protocol"]["split"]) for record in records(tmp_path)]
    assert found == [(80, "val"), (160, "val")]  # the last one is not measured again
    last = records(tmp_path)[-1]
    assert printed.count("VAE after 160 images") == 1
    assert f"{last['metrics']['frechet_distance']:.4g}" in printed
    assert "50 validation images" in printed
    assert "50 test images" in fit(split_at_end="test")
    in_between, last = records(tmp_path)[-2:]
    assert [record["protocol"]["split"] for record in (in_between, last)] == ["val", "test"]
    assert in_between["losses"] == last["losses"] != {}
    assert last["protocol"]["weights"] == in_between["protocol"]["weights"] == "ema 0.9"
    assert last["metrics"]["frechet_distance"] != in_between["metrics"]["frechet_distance"]
    with pytest.raises(ValueError, match="split_at_end='train': it must be val or test"):
        Evaluate(small(), split_at_end="train")  # type: ignore[arg-type]


def test_every_n_images_counts_images(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    trainer = make_trainer(callbacks=[Evaluate(small(), every_n_images=100)], max_epochs=6, limit_val_batches=1)
    trainer.fit(make_vae(), datamodule=data)
    assert [record["images_seen"] for record in records(tmp_path)] == [120, 240]


def best(**options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(**({"monitor": "evaluation/frechet_distance", "filename": "best"} | options))


@pytest.mark.parametrize("is_first", [True, False])
def test_a_checkpoint_of_the_best_samples(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path, is_first: bool
) -> None:
    """Evaluations at 2, 4 and 6 epochs, and at the first validation, where the checkpoint needs a number."""
    checkpoint, evaluate = best(), Evaluate(small(), every_n_epochs=2)
    callbacks = [checkpoint, evaluate] if is_first else [evaluate, checkpoint]
    trainer = make_trainer(callbacks=callbacks, enable_checkpointing=True, max_epochs=6, limit_val_batches=1)
    trainer.fit(make_vae(), datamodule=data)
    found = {record["step"]: record["metrics"]["frechet_distance"] for record in records(tmp_path)}
    assert list(found) == [2, 4, 8, 12]
    saved = torch.load(checkpoint.best_model_path, weights_only=True)
    assert saved["global_step"] == min(found, key=found.__getitem__)
    assert checkpoint.best_model_score is not None
    assert checkpoint.best_model_score.item() == pytest.approx(min(found.values()), rel=1e-5)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_before_the_first_planned_evaluation_a_checkpoint_is_told_the_worst(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path, mode: str
) -> None:
    checkpoint = best(monitor="evaluation/recall" if mode == "max" else "evaluation/frechet_distance", mode=mode)
    budget = Budget(images=120, validations=4, evaluations=2)
    callbacks = [checkpoint, Evaluate(small()), budget]
    trainer = make_trainer(callbacks=callbacks, enable_checkpointing=True, limit_val_batches=1)
    trainer.fit(make_vae(), datamodule=ImageDataModule(subset=60, batch_size=10))
    assert [record["images_seen"] for record in records(tmp_path)] == [60, 120]
    found = [record["metrics"][str(checkpoint.monitor).split("/")[1]] for record in records(tmp_path)]
    assert checkpoint.best_model_score == pytest.approx(min(found) if mode == "min" else max(found), rel=1e-5)


def test_early_stopping_has_a_number_from_the_first_validation_on(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    stopping = EarlyStopping("evaluation/frechet_distance", patience=100)
    callbacks = [stopping, Evaluate(small()), Budget(images=120, validations=4, evaluations=2)]
    make_trainer(callbacks=callbacks, limit_val_batches=1).fit(
        make_vae(), datamodule=ImageDataModule(subset=60, batch_size=10)
    )
    assert [record["images_seen"] for record in records(tmp_path)] == [30, 60, 120]


def test_what_is_measured_at_the_end_only_cannot_be_monitored(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    trainer = make_trainer(callbacks=[Evaluate(small()), best()], enable_checkpointing=True, max_epochs=1)
    message = r"ModelCheckpoint monitors evaluation/frechet_distance, but .* set evaluate.every_n_epochs"
    with pytest.raises(ValueError, match=message):
        trainer.fit(make_vae(), datamodule=data)


def test_where_quality_is_not_measured_a_checkpoint_keeps_the_latest_state(
    make_vae: Callable[..., VAE],
    make_trainer: MakeTrainer,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    checkpoint, other = best(save_top_k=2), ModelCheckpoint(monitor="val/loss", filename="other")
    callbacks = [Evaluate(small(), every_n_epochs=1), checkpoint, other]
    trainer = make_trainer(callbacks=callbacks, enable_checkpointing=True, max_epochs=2)
    trainer.fit(make_vae(), datamodule=ImageDataModule(str(folder), batch_size=10))
    assert "cannot be monitored: the checkpoint is that of the latest state" in capsys.readouterr().out
    assert torch.load(checkpoint.best_model_path, weights_only=True)["global_step"] == trainer.global_step
    assert {path.name for path in Path(checkpoint.dirpath or "").iterdir()} == {"best.ckpt", "other.ckpt"}
    assert other.monitor == "val/loss"


def test_fid_is_logged_under_the_name_that_every_extractor_has(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator, found = small(), Evaluation({"fid": 7.0, "kid": 1.0, "recall": 0.5}, {}, {"floor": {}}, [])
    stamp = {"num_fake": 30, "num_real": 50, "extractor": "inception", "weights": "raw"}
    found.protocol |= stamp
    monkeypatch.setattr(evaluator, "evaluate", lambda *_, **__: found)
    trainer = make_trainer(callbacks=[Evaluate(evaluator, every_n_epochs=1)], max_epochs=1, limit_val_batches=1)
    trainer.fit(make_vae(), datamodule=data)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("evaluation")}
    names = {"fid": 7.0, "frechet_distance": 7.0, "kid": 1.0, "recall": 0.5}
    names |= {"memorised": 0.0, "quality_without_copies": 7.0}
    assert logged == {f"evaluation/{name}": value for name, value in names.items()}


class Remark(L.Callback):
    """Has something to add to an evaluation."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_evaluation(self, trainer: L.Trainer, model: VAE, evaluation: Evaluation) -> dict[str, Any]:
        return {self.name: evaluation.metrics["recall"], "lines": [f"{self.name} has seen {model.images_seen} images."]}


def test_other_callbacks_add_to_the_record_and_to_the_table(
    make_vae: Callable[..., VAE],
    make_trainer: MakeTrainer,
    data: ImageDataModule,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    callbacks = [Remark("first"), Evaluate(small()), Remark("second")]
    make_trainer(callbacks=callbacks, max_epochs=1, limit_val_batches=1).fit(make_vae(), datamodule=data)
    (record,) = records(tmp_path)
    assert record["first"] == record["second"] == record["metrics"]["recall"]
    assert "lines" not in record
    assert "first has seen 40 images.\nsecond has seen 40 images." in capsys.readouterr().out


def test_evaluating_does_not_disturb_the_training(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    finals = []
    for callbacks in ([Evaluate(small(), every_n_epochs=1)], []):
        model = make_vae()
        torch.manual_seed(1)
        make_trainer(callbacks=callbacks, max_epochs=2, limit_val_batches=1).fit(model, datamodule=data)
        finals.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*finals)


def test_a_test_adds_its_losses_and_its_evaluation(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    append_record(tmp_path / "evaluation.json", {"earlier": 1})
    trainer = make_trainer(callbacks=[Evaluate(small())], limit_test_batches=2)
    trainer.test(make_vae(), datamodule=data, verbose=False)
    earlier, record = records(tmp_path)
    assert earlier == {"earlier": 1}
    assert record["losses"]["test/loss"] == pytest.approx(trainer.callback_metrics["test/loss"].item())


def test_too_few_images_to_compare_with_do_not_stop_a_run_that_did_not_ask_for_it(
    make_vae: Callable[..., VAE],
    make_trainer: MakeTrainer,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    model = make_vae()
    trainer = make_trainer(callbacks=[Evaluate(small(), every_n_epochs=1)], max_epochs=1)
    trainer.fit(model, datamodule=ImageDataModule(str(folder), batch_size=10))
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "The quality of samples will not be measured: pictures has 3 val images, and a comparison needs at least 6"
        in printed
    )
    assert "The quality of samples was not measured" in printed
    assert "val/loss" in printed
    assert model.images_seen == 20
    assert not (tmp_path / "evaluation.json").exists()


def test_a_missing_extractor_that_was_asked_for_is_an_error_before_training(
    make_vae: Callable[..., VAE],
    make_trainer: MakeTrainer,
    data: ImageDataModule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for extractor in ("inception", str(tmp_path / "none.safetensors")):
        model = make_vae()
        with pytest.raises(FileNotFoundError, match="does not exist"):
            make_trainer(callbacks=[Evaluate(small(extractor=extractor))], max_epochs=1).fit(model, datamodule=data)
        assert model.images_seen == 0


def test_no_extractor_gets_into_the_checkpoint(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    model = make_vae()
    trainer = make_trainer(callbacks=[Evaluate(small())], max_epochs=1, limit_val_batches=1)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    checkpoint = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert checkpoint["state_dict"].keys() == make_vae().state_dict().keys()
    assert not checkpoint["callbacks"]
    numbers = sum(p.numel() for p in model.parameters())
    assert (tmp_path / "model.ckpt").stat().st_size < 3.2 * 4 * numbers  # weights and Adam's two moments


def test_an_evaluation_needs_a_data_module(make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: Any) -> None:
    with pytest.raises(ValueError, match="Evaluate needs a data module"):
        make_trainer(callbacks=[Evaluate(small())], max_epochs=1).fit(make_vae(), data.loader("val"))


@pytest.mark.parametrize("options", [{"every_n_epochs": 0}, {"every_n_images": -5}])
def test_a_period_must_be_positive(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"every_n_\w+=-?\d: it must be at least 1; null is an evaluation at the end"):
        Evaluate(small(), **options)


def test_a_record_is_added_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run" / "evaluation.json"
    append_record(path, {"a": 1})
    append_record(path, {"a": 2})
    assert os.listdir(path.parent) == ["evaluation.json"]

    def fail(*paths: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        append_record(path, {"a": 3})
    assert json.loads(path.read_text()) == [{"a": 1}, {"a": 2}]
