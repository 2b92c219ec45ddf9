import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from lit_generative import VAE, Evaluator, GenerativeModule, ImageDataModule
from lit_generative.callbacks import EMA, Evaluate
from lit_generative.gan import GANHealth
from lit_generative.sampling import sampling_mode

MakeTrainer = Callable[..., L.Trainer]
LOOKED_AT = 8  # images of each split; batches have 20


@functools.cache
def held_out_images() -> Tensor:
    return next(iter(ImageDataModule(subset=100, batch_size=20).loader("val", limit=LOOKED_AT)))["image"]


class Scripted(GenerativeModule):
    """A generator that draws images of ``spread`` and a discriminator that says what it is told."""

    def __init__(self, spread: float = 1.0) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.zeros(1, 28, 28))
        self.loss = SimpleNamespace(boundary=0.0)
        self.spread = spread
        self.real_logit, self.held_out_logit, self.fake_logit, self.gradient = 1.0, 1.0, -1.0, 1.0
        self.looks: list[tuple[int, bool]] = []  # (step, whether at held-out images)

    def losses(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        return {"loss": (x - self.image + 0.1 * torch.randn_like(x)).square().flatten(1).sum(1)}

    @sampling_mode
    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        return self.spread * (torch.randint(2, (n, 1, 28, 28), generator=generator, device=self.device) * 2.0 - 1)

    def diagnose(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        torch.rand(3)  # a careless implementation: the callback isolates it
        is_held_out = torch.equal(x, held_out_images())
        self.looks.append((self.trainer.global_step, is_held_out))
        one = torch.ones(len(x))
        real = self.held_out_logit if is_held_out else self.real_logit
        return {
            "real_logits": one * real,
            "fake_logits": one * self.fake_logit,
            "generator_gradient": one * self.gradient,
        }


class Spy(L.Callback):
    """Keeps what was logged after each step, and lets a test change the model in between."""

    def __init__(self, change: Callable[[Scripted, int], None] | None = None) -> None:
        self.change = change
        self.logged: dict[int, dict[str, float]] = {}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.change is not None:
            self.change(pl_module, trainer.global_step + 1)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        metrics = trainer.callback_metrics.items()
        self.logged[trainer.global_step] = {k: float(v) for k, v in metrics if k.startswith("health/")}


@pytest.fixture(scope="module")
def data() -> ImageDataModule:
    return ImageDataModule(subset=100, batch_size=20)


@pytest.fixture(autouse=True)
def _judge_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_generative.gan.verdict.LEAST_IMAGES", 0)


def health(**options: Any) -> GANHealth:
    return GANHealth(**({"every_n_steps": 1, "num_samples": LOOKED_AT} | options))


def records(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "evaluation.json").read_text())


def test_signs_are_what_the_logits_and_samples_say(
    make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    model, spy = Scripted(), Spy()
    model.real_logit, model.held_out_logit, model.fake_logit, model.gradient = 2.0, -1.0, 0.5, 0.25
    callbacks = [health(), spy]
    make_trainer(callbacks=callbacks, max_steps=2, limit_val_batches=0).fit(model, datamodule=data)
    logged = spy.logged[2]
    real = next(iter(data.loader("val", limit=LOOKED_AT)))["image"].flatten(1).double()
    fake = model.sample(LOOKED_AT, generator=torch.Generator().manual_seed(0)).flatten(1).double()
    pairs = [(i, j) for i in range(LOOKED_AT) for j in range(i)]
    distances = [sum((x[i] - x[j]).square().sum().sqrt() for i, j in pairs) for x in (fake, real)]
    assert logged == pytest.approx(
        {
            "health/real_accuracy": 1.0,
            "health/fake_accuracy": 0.0,
            "health/held_out_accuracy": 0.0,
            "health/logit_gap": 1.5,
            "health/logit_magnitude": 2.0,
            "health/generator_gradient": 0.25,
            "health/diversity": float(distances[0] / distances[1]),
            "health/reach": 1.0,  # binary noise is far from all images
            "health/healthy": 1.0,
        },
        rel=1e-5,
    )


def test_samples_of_two_far_modes_reach_few_real_images(make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    """Their distance from each other is that of real images, so that the diversity alone sees nothing."""
    images = next(iter(data.loader("train", batch_size=100)))["image"]
    trouser, boot = images[images.mean(dim=(1, 2, 3)).argsort()[[20, 80]]]

    class TwoModes(Scripted):
        @sampling_mode
        def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
            is_first = torch.randint(2, (n, 1, 1, 1), generator=generator).bool()
            return torch.where(is_first, trouser, boot) + 0.01 * torch.randn(n, 1, 28, 28, generator=generator)

    class Varied(Scripted):
        @sampling_mode
        def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
            return images[torch.randint(len(images), (n,), generator=generator)]

    reaches = []
    for model in (TwoModes(), Varied()):
        callbacks = [health(num_samples=40), spy := Spy()]
        make_trainer(callbacks=callbacks, max_steps=2, limit_val_batches=0).fit(model, datamodule=data)
        assert spy.logged[2]["health/diversity"] > 0.4
        reaches.append(spy.logged[2]["health/reach"])
    assert reaches[0] < 0.3
    assert 0.6 < reaches[1] < 1.4


def test_without_a_boundary_only_differences_count(make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    model, spy = Scripted(), Spy()
    model.loss.boundary = None
    model.real_logit, model.held_out_logit, model.fake_logit = 100.0, 90.0, 95.0
    make_trainer(callbacks=[health(), spy], max_steps=1, limit_val_batches=0).fit(model, datamodule=data)
    names = ("real_accuracy", "fake_accuracy", "held_out_accuracy", "logit_magnitude")
    assert [spy.logged[1][f"health/{name}"] for name in names] == [1.0, 1.0, 0.0, 5.0]


def test_looks_come_every_so_many_steps_and_not_in_sanity_checking(
    make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    model = Scripted()
    trainer = make_trainer(callbacks=[health(every_n_steps=3)], max_epochs=2, num_sanity_val_steps=2)
    trainer.fit(model, datamodule=data)
    assert model.looks == [(step, is_held_out) for step in (1, 4, 7, 10) for is_held_out in (False, True)]


def test_an_accumulated_step_is_looked_at_once(make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    model = Scripted()
    trainer = make_trainer(callbacks=[health(every_n_steps=1)], max_epochs=1, accumulate_grad_batches=2)
    trainer.fit(model, datamodule=data)
    steps = [step for step, is_held_out in model.looks if not is_held_out]
    assert len(steps) == len(set(steps))


def test_training_is_not_disturbed(make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    finals, states = [], []
    for callbacks in ([health()], []):
        torch.manual_seed(0)
        model = Scripted()
        make_trainer(callbacks=callbacks, max_epochs=2, limit_val_batches=1).fit(model, datamodule=data)
        finals.append(model.image.detach())
        states.append(torch.get_rng_state())
    assert finals[0].abs().sum() > 0
    assert torch.equal(*finals)
    assert torch.equal(*states)


def saturate(model: Scripted, step: int) -> None:
    """From the fifth step on, the discriminator is perfect and teaches nothing."""
    if step >= 5:
        model.real_logit, model.held_out_logit, model.fake_logit, model.gradient = 20.0, 20.0, -20.0, 1e-8


def test_a_verdict_is_printed_when_it_turns_and_written_at_the_end(
    make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, spy = Scripted(), Spy(saturate)
    logger = CSVLogger(tmp_path, name="run", version=0)
    trainer = make_trainer(callbacks=[spy, health()], max_epochs=2, logger=logger, log_every_n_steps=1)
    trainer.fit(model, datamodule=data)
    printed = capsys.readouterr().out
    assert printed.count("vanishing gradients") == 2  # when it turned, at the median of five, and at the end
    assert "Health at step 7: vanishing gradients (" in printed
    (record,) = records(tmp_path / "run" / "version_0")
    assert (record["images_seen"], record["step"]) == (200, 10)
    found = record["health"]
    assert found["verdict"] == "vanishing gradients"
    assert "NonSaturatingLoss" in found["advice"]
    assert "gradient" in found["reasons"][1]
    assert found["signs"]["generator_gradient"] == pytest.approx(1e-8)
    assert found["signs"]["gradient_peak"] == 1.0
    assert (found["signs"]["checks"], found["signs"]["recall"]) == (10, None)
    assert "vanishing gradients" in (tmp_path / "run/version_0/hparams.yaml").read_text()
    assert "health/real_accuracy" in (tmp_path / "run/version_0/metrics.csv").read_text()


def test_a_healthy_run_says_so_once_and_what_was_not_measured(
    make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer(callbacks=[health(stop=True, patience=1)], max_epochs=2).fit(Scripted(), datamodule=data)
    (record,) = records(tmp_path)
    assert (record["step"], record["health"]["verdict"]) == (10, "healthy")
    assert "recall, coverage and missing classes were not measured" in record["health"]["reasons"]
    assert capsys.readouterr().out.count("Health") == 1


@pytest.mark.parametrize(("stop", "expected"), [(True, 9), (False, 25)])
def test_an_illness_that_persists_stops_the_run_if_asked(
    make_trainer: MakeTrainer,
    data: ImageDataModule,
    capsys: pytest.CaptureFixture[str],
    stop: bool,
    expected: int,
) -> None:
    trainer = make_trainer(callbacks=[Spy(saturate), health(stop=stop, patience=3)], max_epochs=5)
    trainer.fit(Scripted(), datamodule=data)
    assert trainer.global_step == expected  # ill at 7, 8 and 9
    assert ("GANHealth stops the run after 3 looks in a row: vanishing gradients" in capsys.readouterr().out) is stop


def test_identical_samples_are_a_collapse(make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path) -> None:
    make_trainer(callbacks=[health()], max_epochs=2).fit(Scripted(spread=0.01), datamodule=data)
    found = records(tmp_path)[0]["health"]
    assert found["verdict"] == "mode collapse"
    assert found["signs"]["diversity"] < 0.05


def test_a_discriminator_that_knows_its_images_by_heart_overfits(
    make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    model = Scripted()
    model.held_out_logit = -1.0
    make_trainer(callbacks=[health()], max_epochs=1).fit(model, datamodule=data)
    assert records(tmp_path)[0]["health"]["verdict"] == "discriminator overfits"


def test_a_run_that_ends_in_an_infinite_loss_has_diverged(
    make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    def explode(model: Scripted, step: int) -> None:
        if step == 4:
            model.image.data.fill_(torch.inf)

    trainer = make_trainer(callbacks=[Spy(explode), health()], max_epochs=1, log_every_n_steps=1)
    with pytest.raises(FloatingPointError):
        trainer.fit(Scripted(), datamodule=data)
    (record,) = records(tmp_path)
    assert (record["step"], record["health"]["verdict"]) == (3, "diverged")


def test_a_resumed_run_knows_what_was_before(make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path) -> None:
    def train(epochs: int, ckpt_path: Path | None) -> tuple[GANHealth, L.Trainer]:
        callback = health()
        trainer = make_trainer(callbacks=[Spy(saturate), callback], max_epochs=epochs)
        trainer.fit(Scripted(), datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        return callback, trainer

    whole, _ = train(3, None)
    _, trainer = train(1, None)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, trainer = train(3, tmp_path / "half.ckpt")
    assert resumed.state_dict() == whole.state_dict()
    assert resumed.history.gradient_peak == 1.0
    assert resumed.verdict == "vanishing gradients"


def test_each_evaluation_is_judged_and_written_down(
    make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = Evaluate(Evaluator(num_samples=200, num_real=200), every_n_epochs=1)
    trainer = make_trainer(callbacks=[health(every_n_steps=100), evaluate, EMA(0.9)], max_epochs=2, limit_val_batches=1)
    trainer.fit(Scripted(), datamodule=data)
    found = records(tmp_path)
    assert [record["images_seen"] for record in found] == [100, 200]
    for record in found:
        signs, metrics = record["health"]["signs"], record["metrics"]
        assert record["health"]["verdict"] == "mode collapse"  # binary noise is of one class
        assert "lines" not in record
        assert {signs[name] for name in ("recall", "coverage")} == {metrics[name] for name in ("recall", "coverage")}
        assert (signs["missing_classes"], signs["num_classes"]) == (metrics["missing_classes"], 10)
        assert signs["frechet_distance"] == metrics["frechet_distance"]
    assert found[-1]["health"]["signs"]["best_at"] in (100, 200)
    printed = capsys.readouterr().out
    assert printed.count("Health at step 5: mode collapse") == 1
    assert printed.count("Health: mode collapse") == 1  # below the table


def test_an_evaluation_counts_once_towards_stopping(
    make_trainer: MakeTrainer, data: ImageDataModule, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = Evaluate(Evaluator(num_samples=200, num_real=200), every_n_epochs=1)
    trainer = make_trainer(callbacks=[health(stop=True, patience=2), evaluate], max_epochs=4, limit_val_batches=1)
    trainer.fit(Scripted(), datamodule=data)
    assert trainer.current_epoch == 2
    assert "after 2 evaluations in a row" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["every_n_steps", "num_samples", "patience"])
def test_numbers_must_be_large_enough(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}=0: it must be at least"):
        GANHealth(**{option: 0})


def test_a_model_without_a_discriminator_is_refused(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    with pytest.raises(ValueError, match=r"GANHealth needs a model with a loss and diagnose.*; VAE has not both"):
        make_trainer(callbacks=[GANHealth()], max_epochs=1).fit(make_vae(), datamodule=data)


def test_validation_images_are_needed(make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    with pytest.raises(ValueError, match="GANHealth needs a data module"):
        make_trainer(callbacks=[GANHealth()], max_epochs=1).fit(Scripted(), data.loader("train"))


@pytest.mark.parametrize(
    ("theirs", "verdict", "last_step"),
    [(1.0, "healthy", 10), (0.0, "discriminator overfits", 6), (torch.nan, "diverged", 2)],
)
def test_what_another_process_finds_counts_as_much(
    make_trainer: MakeTrainer,
    data: ImageDataModule,
    monkeypatch: pytest.MonkeyPatch,
    theirs: float,
    verdict: str,
    last_step: int,
) -> None:
    """A second process, played by the strategy, finds the same except for its accuracy on held-out images."""

    def mean_of_both(found: Tensor, reduce_op: str) -> Tensor:
        if reduce_op != "mean":  # Lightning counts batches
            return found
        other = found.clone()
        other[2] = theirs
        return (found + other) / 2

    callback = health(stop=True, patience=2)
    trainer = make_trainer(callbacks=[callback], max_epochs=2, limit_val_batches=0)
    monkeypatch.setattr(trainer.strategy, "reduce", mean_of_both)
    trainer.fit(Scripted(), datamodule=data)
    assert (callback.verdict, trainer.global_step) == (verdict, last_step)
