from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lit_generative import GAN, VAE, GenerativeModule, ImageDataModule
from lit_generative.callbacks import EMA

MakeTrainer = Callable[..., L.Trainer]


@pytest.fixture(scope="module")
def data() -> ImageDataModule:
    return ImageDataModule(subset=60, batch_size=10)


def weights(model: torch.nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class Watch(L.Callback):
    """Notes the trained weights after each step, and what validation and later stages see."""

    def __init__(self) -> None:
        self.trained: dict[int, list[Tensor]] = {}
        self.seen: list[tuple[str, list[Tensor]]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.trained[0] = weights(pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.trained[trainer.global_step] = weights(pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.seen.append((pl_module.weights, weights(pl_module)))

    on_test_start = on_predict_start = on_validation_start


class BreakingVAE(VAE):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        raise ArithmeticError


def by_hand(trained: dict[int, list[Tensor]], decay: float, warmup: bool) -> list[Tensor]:
    """The definition: average <- d_t average + (1 - d_t) weights, after step t."""
    average = [w.clone() for w in trained[0]]
    for t in range(1, max(trained) + 1):
        d = min(decay, (1 + t) / (10 + t)) if warmup else decay
        average = [d * a + (1 - d) * w for a, w in zip(average, trained[t], strict=True)]
    return average


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_is_the_average_over_the_optimizers_steps(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, warmup: bool, accumulate: int
) -> None:
    model, watch = make_vae(), Watch()
    options = {"max_epochs": 2, "limit_val_batches": 0, "accumulate_grad_batches": accumulate}
    make_trainer(callbacks=[watch, EMA(0.4, warmup)], **options).fit(model, datamodule=data)
    assert max(watch.trained) == 12 // accumulate
    torch.testing.assert_close(weights(model), by_hand(watch.trained, 0.4, warmup), rtol=1e-5, atol=1e-6)
    assert not equal(weights(model), watch.trained[12 // accumulate])
    assert model.weights == "ema 0.4"


def test_a_part_is_averaged_and_the_rest_is_not(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    model, watch = make_vae(), Watch()
    make_trainer(callbacks=[watch, EMA(0.9, part="decoder")], max_steps=4, limit_val_batches=0).fit(
        model, datamodule=data
    )
    names = [name for name, _ in model.named_parameters()]
    expected = by_hand(watch.trained, 0.9, True)
    for name, value, average, trained in zip(names, weights(model), expected, watch.trained[4], strict=True):
        torch.testing.assert_close(value, average if name.startswith("decoder.") else trained, rtol=1e-5, atol=1e-6)
    assert model.weights == "ema 0.9 of decoder"


def test_validation_sees_the_average_and_training_goes_on_with_its_own_weights(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    finals = []
    for callbacks in ([EMA(0.8)], []):
        model, watch = make_vae(), Watch()
        torch.manual_seed(0)
        options = {"max_epochs": 2, "limit_val_batches": 1}
        make_trainer(callbacks=[watch, *callbacks], **options).fit(model, datamodule=data)
        finals.append(watch.trained[12])
        first_epoch = {step: values for step, values in watch.trained.items() if step <= 6}
        expected = by_hand(first_epoch, 0.8, True) if callbacks else first_epoch[6]
        torch.testing.assert_close(watch.seen[0][1], expected, rtol=1e-5, atol=1e-6)
        assert watch.seen[0][0] == ("ema 0.8" if callbacks else "raw")
    assert equal(*finals)  # averaging does not change what is averaged


def test_test_prediction_and_samples_use_the_average(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    model, watch = make_vae(), Watch()
    trainer = make_trainer(callbacks=[watch, EMA(0.8)], max_steps=4, limit_val_batches=0, limit_test_batches=1)
    trainer.fit(model, datamodule=data)
    average = by_hand(watch.trained, 0.8, True)
    for stage in (trainer.validate, trainer.test):
        stage(model, datamodule=data, verbose=False)
    torch.testing.assert_close(weights(model), average, rtol=1e-5, atol=1e-6)
    assert model.sampling["sampler"]
    assert model.weights == "ema 0.8"


def test_a_checkpoint_holds_the_average_as_the_models_weights(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    model, watch = make_vae(), Watch()
    keep = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=3)
    options = {"max_epochs": 1, "limit_val_batches": 0, "enable_checkpointing": True}
    make_trainer(callbacks=[watch, EMA(0.8), keep], **options).fit(model, datamodule=data)
    loaded = GenerativeModule.load_from_checkpoint(tmp_path / "step=3.ckpt")
    first_steps = {step: values for step, values in watch.trained.items() if step <= 3}
    torch.testing.assert_close(weights(loaded), by_hand(first_steps, 0.8, True), rtol=1e-5, atol=1e-6)
    assert loaded.weights == "ema 0.8"
    state = torch.load(tmp_path / "step=3.ckpt", weights_only=True)["callbacks"]["EMA"]
    assert equal(state["raw"], watch.trained[3])
    trainer = make_trainer(callbacks=[seen := Watch(), EMA(0.8)], limit_test_batches=1)
    trainer.test(make_vae(), datamodule=data, ckpt_path=tmp_path / "step=3.ckpt", verbose=False, weights_only=True)
    assert equal(seen.seen[0][1], weights(loaded))
    assert seen.seen[0][0] == "ema 0.8"


def test_a_run_that_breaks_off_in_validation_keeps_the_trained_weights(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    model, watch = make_vae(BreakingVAE), Watch()
    with pytest.raises(ArithmeticError):
        make_trainer(callbacks=[watch, EMA(0.8)], max_epochs=1).fit(model, datamodule=data)
    assert equal(weights(model), watch.trained[6])
    assert model.weights == "raw"


@pytest.mark.parametrize("decay", [1.0, -0.1, 999.0])
def test_a_decay_that_is_none_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=rf"decay={decay}: .* in \[0, 1\)"):
        EMA(decay)


def test_a_part_that_is_not_there_is_refused(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    with pytest.raises(ValueError, match=r"part='generator': .* it has encoder, decoder, likelihood"):
        make_trainer(callbacks=[EMA(part="generator")], max_steps=1).fit(make_vae(), datamodule=data)


def test_checkpoints_without_the_average_are_refused(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    keep = ModelCheckpoint(tmp_path, save_weights_only=True)
    trainer = make_trainer(callbacks=[EMA(), keep], max_steps=1, enable_checkpointing=True)
    with pytest.raises(ValueError, match=r"save_weights_only=True: .*leaves the average out"):
        trainer.fit(make_vae(), datamodule=data)


def test_running_statistics_are_averaged_as_the_weights_are(
    make_gan: Callable[..., GAN], make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    model, trained = make_gan(convolutions=True), {}

    def statistics(generator: torch.nn.Module) -> list[Tensor]:
        return [tensor.clone() for name, tensor in generator.named_buffers() if "running" in name]

    class WatchStatistics(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
            trained[trainer.global_step] = statistics(pl_module.generator)

    trained[0] = statistics(model.generator)
    trainer = make_trainer(callbacks=[EMA(0.9, part="generator"), WatchStatistics()], max_epochs=2)
    trainer.fit(model, datamodule=data)
    average = by_hand(trained, 0.9, warmup=True)
    torch.testing.assert_close(statistics(model.generator), average)
    assert not equal(average, trained[max(trained)])
    trainer.save_checkpoint(tmp_path / "averaged.ckpt")
    loaded = GenerativeModule.load_from_checkpoint(tmp_path / "averaged.ckpt")
    assert equal(statistics(loaded.generator), statistics(model.generator))
