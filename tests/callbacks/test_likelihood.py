import csv
import json
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from lit_generative import GAN, VAE, GenerativeModule, ImageDataModule
from lit_generative.callbacks import EstimateLikelihood
from lit_generative.cli import main
from lit_generative.evaluation.likelihood import estimate_likelihoods, mean_likelihoods
from lit_generative.vae import BernoulliLikelihood

MakeTrainer = Callable[..., L.Trainer]
DIMS = 28 * 28


class Known(GenerativeModule):
    """Its bound is the sum of the squared pixels; its flow needs gradients, and is noisy."""

    def __init__(self, noise: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.noise = noise
        self.asked: list[dict[str, Any]] = []

    def losses(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        return {"loss": self.layer(x.mean((1, 2, 3))[:, None])[:, 0].square()}

    def likelihoods(
        self, x: Tensor, y: Tensor | None = None, *, evaluations: int, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        assert x[0].numel() == DIMS  # there are images
        how = {"n": len(x), "evaluations": evaluations, "training": self.training, "grad": torch.is_grad_enabled()}
        self.asked.append(how | {"autocast": torch.is_autocast_enabled("cpu")})
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.layer(x[..., None]).sum(), x)
        noise = self.noise * torch.randn(len(x), generator=generator)
        return {"bound": x.square().flatten(1).sum(1), "flow": slope.mean((1, 2, 3)) / self.layer.weight[0] + noise}


@pytest.fixture(scope="module")
def data() -> ImageDataModule:
    return ImageDataModule(subset=40, batch_size=50)


def records(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "likelihood.json").read_text())


def run(make_trainer: MakeTrainer, data: ImageDataModule, model: GenerativeModule, **options: Any) -> None:
    callback = EstimateLikelihood(**({"num_images": 30, "batch_size": 12, "evaluations": 7} | options))
    trainer = make_trainer(callbacks=[callback], limit_test_batches=1)
    trainer.test(model, datamodule=data, verbose=False)


def test_means_and_standard_errors_are_those_of_the_images(
    make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    run(make_trainer, data, Known(noise=0.0))
    (record,) = records(tmp_path)
    images = next(iter(data.loader("test", batch_size=30, limit=30)))["image"]
    nats = images.double().square().flatten(1).sum(1).numpy()
    mean, stderr = nats.mean(), nats.std(ddof=1) / 30**0.5
    expected = {"bound_nats": mean, "bound_nats_stderr": stderr}
    expected |= {f"{name.replace('nats', 'bits_per_dim')}": value / DIMS / log(2) for name, value in expected.items()}
    expected |= {"flow_nats": 1, "flow_nats_stderr": 0}
    expected |= {"flow_bits_per_dim": 1 / DIMS / log(2), "flow_bits_per_dim_stderr": 0}
    assert record["metrics"] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_uniform_model_has_eight_bits_per_dim() -> None:
    found = mean_likelihoods({"bound": torch.full((5,), DIMS * log(256), dtype=torch.double)}, DIMS)
    assert found["bound_bits_per_dim"] == pytest.approx(8)


def test_numbers_come_with_their_protocol(
    make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Known()
    model.weights, model.precision, model.images_seen = "ema 0.9", "bf16-mixed", 1200
    run(make_trainer, data, model, seed=3)
    (record,) = records(tmp_path)
    expected = {"num_images": 30, "split": "test", "evaluations": 7, "weights": "ema 0.9", "precision": "bf16-mixed"}
    expected |= {"seed": 3, "batch_size": 12, "processes": 1, "data": data.protocol("test")}
    assert record["protocol"] == expected
    assert record["images_seen"] == 1200
    printed = " ".join(capsys.readouterr().out.split())
    assert "Known after 1,200 images" in printed
    mean, error = (record["metrics"][f"bound_bits_per_dim{end}"] for end in ("", "_stderr"))
    assert f"test/bound_bits_per_dim │ {mean:.4g} │ {error:.3g} │ bits/dim" in printed
    assert "test/flow_nats" in printed
    assert "30 test images, 7 evaluations, weights ema 0.9, precision bf16-mixed" in printed


def test_the_model_is_asked_as_it_samples(make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    """And may use gradients, which Lightning's inference mode would not let it."""
    model = Known().train()
    model.precision = "bf16-mixed"
    run(make_trainer, data, model)
    how = {"evaluations": 7, "training": False, "grad": False, "autocast": True}
    assert model.asked == [{"n": n, **how} for n in (12, 12, 6)]


def test_a_seed_decides_the_noise_and_each_batch_has_its_own(
    make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path
) -> None:
    for i, seed in enumerate((0, 0, 1)):
        torch.manual_seed(i)
        run(make_trainer, data, Known(), seed=seed)
    first, again, other = (record["metrics"]["flow_nats"] for record in records(tmp_path))
    assert first == pytest.approx(again, abs=1e-6)
    assert first != pytest.approx(other, abs=1e-2)
    model = Known(noise=1.0)
    run(make_trainer, data, model, num_images=200, batch_size=2)
    stderr = records(tmp_path)[-1]["metrics"]["flow_nats_stderr"]
    assert stderr == pytest.approx(1 / 200**0.5, rel=0.2)  # were the batches' noise the same, there would be two values
    assert abs(records(tmp_path)[-1]["metrics"]["flow_nats"] - 1) < 4 * stderr


def test_loggers_get_the_numbers(make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="run", version=0)
    trainer = make_trainer(callbacks=[EstimateLikelihood(num_images=10)], logger=logger, limit_test_batches=1)
    trainer.test(Known(), datamodule=data, verbose=False)
    folder = tmp_path / "run" / "version_0"
    (record,) = records(folder)
    with (folder / "metrics.csv").open() as file:
        (logged,) = (row for row in csv.DictReader(file) if row["test/bound_nats"])
    assert logged["images_seen"] == "0"
    assert {name: float(logged[f"test/{name}"]) for name in record["metrics"]} == record["metrics"]
    assert "evaluations: 100" in (folder / "hparams.yaml").read_text()


class Empty(Known):
    """Defines no likelihood of the images it is given."""

    def likelihoods(self, x: Tensor, y: Tensor | None = None, **options: Any) -> dict[str, Tensor]:
        return {}


@pytest.mark.parametrize("kind", ["vae", "empty", "off"])
def test_without_likelihoods_nothing_is_said_or_written(
    make_vae: Callable[..., VAE],
    make_trainer: MakeTrainer,
    data: ImageDataModule,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    vae = make_vae()
    vae.likelihood = BernoulliLikelihood()  # which gray images have no probability under
    model = {"vae": vae, "empty": Empty(), "off": Known()}[kind]
    run(make_trainer, data, model, num_images=0 if kind == "off" else 30)
    assert not capsys.readouterr().out
    assert not list(tmp_path.rglob("likelihood.json"))


def test_a_model_without_likelihoods_needs_no_data_module(
    make_gan: Callable[..., GAN], make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    loader = data.loader("test", limit=10)
    make_trainer(callbacks=[EstimateLikelihood()]).test(make_gan(), loader, verbose=False)
    with pytest.raises(ValueError, match="EstimateLikelihood needs a data module"):
        make_trainer(callbacks=[EstimateLikelihood()]).test(Known(), loader, verbose=False)


class Summed(Known):
    """Forgets that an estimate is per image."""

    def likelihoods(self, x: Tensor, y: Tensor | None = None, **options: Any) -> dict[str, Tensor]:
        return {"bound": x.square().sum()}


def test_an_estimate_that_is_not_per_image_is_refused(make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    with pytest.raises(ValueError, match=r"Summed.likelihoods gives 'bound' in the shape \(\) for 12 images"):
        run(make_trainer, data, Summed())


@pytest.mark.parametrize("options", [{"num_images": -1}, {"evaluations": 0}, {"batch_size": 0}, {"seed": -1}])
def test_numbers_must_be_large_enough(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"\w+=-?\d: it must be at least \d"):
        EstimateLikelihood(**options)


def test_one_image_has_no_standard_error() -> None:
    with pytest.raises(ValueError, match="num_images=1: it must be at least 2; the standard error needs two"):
        EstimateLikelihood(num_images=1)


def test_the_command_line_has_its_options(
    make_trainer: MakeTrainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(Known(), datamodule=ImageDataModule(subset=40, batch_size=40))
    trainer.save_checkpoint("known.ckpt")
    options = ["--likelihood.num_images", "20", "--likelihood.evaluations", "5", "--trainer.limit_test_batches", "1"]
    monkeypatch.setattr("lit_generative.callbacks.evaluate.Evaluate.on_test_end", lambda *_: None)
    assert main(["test", "--ckpt_path", "known.ckpt", *options]) == 0, capsys.readouterr().err
    (path,) = (tmp_path / "runs").rglob("likelihood.json")
    assert (records(path.parent)[0]["protocol"]["num_images"], records(path.parent)[0]["images_seen"]) == (20, 40)
    assert "test/bound_bits_per_dim" in capsys.readouterr().out


@pytest.mark.parametrize(("num_images", "world"), [(30, 1), (30, 2), (3, 2), (2, 3)])
def test_processes_share_the_images(monkeypatch: pytest.MonkeyPatch, num_images: int, world: int) -> None:
    """They are played one after the other; what each would send to the others is kept."""
    sent: list[Tensor] = []
    names = ["bound", "flow"]  # those of the first process
    monkeypatch.setattr("lit_generative.evaluation.likelihood.gather", lambda rows: sent.append(rows) or rows)
    monkeypatch.setattr("lit_generative.evaluation.likelihood.broadcast", lambda mine: names)
    for rank in range(world):
        for module in ("evaluation.likelihood", "data.samplers"):
            monkeypatch.setattr(f"lit_generative.{module}.rank_and_world", lambda rank=rank: (rank, world))
        data = ImageDataModule(subset=40)
        estimate_likelihoods(Known(noise=1.0), data, "test", num_images, evaluations=5, batch_size=4)
    assert all(len(rows) < num_images for rows in sent) or world == 1
    monkeypatch.undo()
    images = next(iter(ImageDataModule(subset=40).loader("test", batch_size=num_images, limit=num_images)))["image"]
    expected = images.square().flatten(1).sum(1).sort().values
    found = torch.cat(sent)
    torch.testing.assert_close(found[:, 0].sort().values, expected)
    assert len(found[:, 1].unique()) == num_images  # no two have the same noise
