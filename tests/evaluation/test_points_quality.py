"""How good samples of the plane are: modes, high quality, and the same distances as for images."""

import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_generative import VAE
from lit_generative.cli import main
from lit_generative.core import GenerativeModule
from lit_generative.data import GaussianGrid, GaussianRing, ImageDataModule
from lit_generative.evaluation import Evaluator
from lit_generative.evaluation.extractors import Extractor
from lit_generative.evaluation.features import default_extractor
from lit_generative.evaluation.metrics import SampleQuality
from lit_generative.nn import MLPDecoder, MLPEncoder
from lit_generative.sampling import sampling_mode
from lit_generative.vae import GaussianLikelihood


class TrueModel(GenerativeModule):
    """Draws from the mixture itself, or from some of its modes."""

    def __init__(self, data, modes=None, num_classes=None):
        super().__init__(num_classes)
        self.register_buffer("centres", torch.from_numpy(data.centres()).float())
        self.modes = modes or list(range(data.num_classes))
        self.scale = data.scale

    @sampling_mode
    def sample(self, n, y=None, *, generator=None):
        mode = torch.tensor(self.modes)[torch.randint(len(self.modes), (n,), generator=generator)] if y is None else y
        points = self.centres[mode] + self.scale * torch.randn(n, 2, generator=generator)
        return points[:, :, None, None]


def make_vae(num_classes=None):
    torch.manual_seed(0)
    networks = [cls((2, 1, 1), 2, (32,), num_classes) for cls in (MLPEncoder, MLPDecoder)]
    adam = functools.partial(torch.optim.Adam, lr=1e-3)
    return VAE(*networks, GaussianLikelihood(), 2, num_classes=num_classes, optimizer=adam)


def metrics(data, points):
    return {name: value.item() for name, value in default_extractor(data).metrics(torch.as_tensor(points)).items()}


def test_known_values_of_constructed_samples():
    data = GaussianRing(radius=0.5, scale=0.01)
    centres = data.centres().astype(np.float32)
    assert metrics(data, centres) == {"modes": 8, "high_quality": 1}
    assert metrics(data, centres[[2, 2, 5]]) == {"modes": 2, "high_quality": 1}
    outwards = np.array([[1, 0]], np.float32)
    near, far = centres[:1] + 0.0299 * outwards, centres[:1] + 0.0301 * outwards
    assert metrics(data, near) == {"modes": 1, "high_quality": 1}
    assert metrics(data, far) == {"modes": 0, "high_quality": 0}
    assert metrics(data, np.concatenate([near, far, far, centres[3:4]])) == {"modes": 2, "high_quality": 0.5}


@pytest.mark.parametrize(("make", "modes"), [(GaussianRing, 8), (GaussianGrid, 25)])
def test_real_points_cover_all_modes_with_the_quality_of_a_gaussian(make, modes):
    points = torch.cat([batch["image"] for batch in make().loader("train")]).flatten(1)
    found = metrics(make(), points)
    assert found["modes"] == modes
    expected = 1 - math.exp(-4.5)
    assert found["high_quality"] == pytest.approx(expected, abs=5 * (expected * (1 - expected) / len(points)) ** 0.5)


def test_classes_are_the_modes():
    data = GaussianGrid()
    batch = next(iter(data.loader("test", batch_size=500)))
    extractor = default_extractor(data)
    assert torch.equal(extractor.classify(extractor(batch["image"])).argmax(1), batch["label"])


@pytest.mark.parametrize("data", [GaussianRing(), GaussianGrid()], ids=["ring", "grid"])
def test_the_true_distribution_is_as_good_as_the_floor(data, tmp_path):
    found = Evaluator(cache_dir=str(tmp_path)).evaluate(TrueModel(data), data, progress=False)
    stamp = found.protocol
    assert (stamp["extractor"], stamp["num_features"], stamp["num_real"], stamp["num_fake"]) == (
        "points",
        2,
        2000,
        2000,
    )
    assert found.metrics["modes"] == stamp["floor"]["modes"] == data.num_classes
    assert found.metrics["high_quality"] == pytest.approx(0.989, abs=0.012)
    assert stamp["floor"]["high_quality"] == pytest.approx(0.989, abs=0.012)
    assert found.metrics["frechet_distance"] < 0.005
    assert found.metrics["recall"] > 0.9
    assert found.classes["missing"] == []
    assert set(stamp["floor"]) == set(found.metrics) - {"missing_classes"}
    assert found.warnings == []
    json.dumps(found.to_dict())


def test_lost_modes_are_counted_and_named(tmp_path):
    data = GaussianRing()
    model = TrueModel(data, modes=[0, 1, 2])
    found = Evaluator(cache_dir=str(tmp_path)).evaluate(model, data, progress=False)
    assert found.metrics["modes"] == 3
    assert found.classes["missing"] == [f"mode {i}" for i in range(3, 8)]
    assert found.metrics["high_quality"] == pytest.approx(0.989, abs=0.012)
    assert found.metrics["recall"] < 0.5
    assert found.metrics["frechet_distance"] > 0.1


def test_a_conditional_model_is_asked_for_all_modes(tmp_path):
    data = GaussianRing()
    found = Evaluator(cache_dir=str(tmp_path)).evaluate(TrueModel(data, num_classes=8), data, progress=False)
    assert found.protocol["labels"] == "as real"
    assert found.metrics["modes"] == 8


def test_one_evaluator_goes_with_several_data_sets(tmp_path):
    evaluator = Evaluator(cache_dir=str(tmp_path), num_samples=200)
    for data in (GaussianRing(), GaussianGrid(), GaussianRing(radius=0.4)):
        found = evaluator.evaluate(TrueModel(data), data, progress=False)
        assert found.metrics["modes"] == data.num_classes
        assert found.metrics["high_quality"] > 0.95
    images = ImageDataModule(subset=100)
    evaluator.check(images)
    assert evaluator.extractor_for(images).name == "fashion"


def test_the_points_extractor_does_not_take_images(tmp_path):
    evaluator = Evaluator(default_extractor(GaussianRing()), cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"extractor 'points' cannot take images of shape \(1, 28, 28\)"):
        evaluator.check(ImageDataModule(subset=100))


def test_extractors_add_no_metrics_unless_they_say_so():
    assert Extractor(torch.nn.Identity()).metrics(torch.zeros(4, 2)) == {}


def test_what_an_extractor_adds_is_of_the_samples_of_all_processes():
    features = torch.rand(2, 20, 2)
    quality = SampleQuality(2, lambda fake: {"total": fake.double().sum(), "count": torch.tensor(len(fake))})
    for real, rows in zip((True, False), features, strict=True):
        quality.update(rows, real)
    quality.distributed_available_fn = lambda: True
    quality.dist_sync_fn = lambda rows, group: [rows, rows]  # another process has the same samples
    found = quality.compute()
    assert found["count"] == 40
    torch.testing.assert_close(found["total"], 2 * features[1].double().sum())


@pytest.mark.parametrize("num_classes", [None, 8])
def test_a_vae_trains_on_it(make_trainer, num_classes):
    model = make_vae(num_classes)
    trainer = make_trainer(max_steps=200, limit_val_batches=1, max_epochs=-1)
    data = GaussianRing(num_train=2560)
    trainer.validate(model, datamodule=data, verbose=False)
    before = trainer.callback_metrics["val/loss"]
    trainer.fit(model, datamodule=data)
    assert trainer.callback_metrics["val/loss"] < before - 0.5
    assert model.sample(3, None if num_classes is None else torch.arange(3)).shape == (3, 2, 1, 1)


def test_the_command_line_from_training_to_samples(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--data", "GaussianRing", "--data.num_train", "512", "--data.num_test", "100"]
    options += ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    options += ["--evaluation.num_samples", "100", "--grid.num_samples", "50"]
    assert main(["fit", "--config", "vae/mlp", *options]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "high_quality" in printed
    folder = Path(printed.rpartition("run folder: ")[2].splitlines()[0])
    record = json.loads((folder / "evaluation.json").read_text())[-1]
    assert {"modes", "high_quality", "frechet_distance", "missing_classes"} <= set(record["metrics"])
    (grid,) = (folder / "grids").iterdir()
    with Image.open(grid) as picture:
        assert (picture.mode, picture.size) == ("L", (256, 256))

    checkpoint = ["--ckpt_path", str(folder / "checkpoints" / "last.ckpt")]
    sample = ["sample", *checkpoint, "--output", "out", "--num_samples", "30", "--batch_size", "20", "--device", "cpu"]
    assert main([*sample, "--grid", "all.png"]) == 0
    assert [path.name for path in Path("out").iterdir()] == ["samples.csv"]
    points = np.loadtxt("out/samples.csv", delimiter=",", skiprows=1)
    assert points.shape == (30, 2)
    assert np.abs(points).max() <= 1
    assert Path("all.png").is_file()
    capsys.readouterr()
    assert main([*sample, "--grid", "other.png"]) == 1
    assert "samples.csv is there already" in capsys.readouterr().err

    assert main(["predict", *checkpoint, "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]) == 0
    found = sorted(tmp_path.rglob("samples/*"))
    assert [path.name for path in found] == ["0_0000.csv"]
    assert np.loadtxt(found[0], delimiter=",", skiprows=1).shape == (100, 2)
