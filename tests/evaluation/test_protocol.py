import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from stand_ins import NoisyCopies, images_and_labels
from torch import nn

from lit_generative.data import ImageDataModule
from lit_generative.evaluation import Evaluation, Evaluator
from lit_generative.sampling import sampling_mode

QUIET = {"progress": False}


@pytest.fixture
def evaluator(tmp_path):
    return Evaluator(num_samples=400, num_real=500, batch_size=100, cache_dir=str(tmp_path))


def cache_files(evaluator):
    return sorted(evaluator.cache.folder.glob("*"))


def test_distance_grows_with_noise_and_with_blur(evaluator, data, train_images):
    images, labels = train_images
    by_noise = [
        evaluator.evaluate(NoisyCopies(images, labels, noise), data, **QUIET).metrics for noise in (0, 0.15, 0.3, 0.6)
    ]
    blurred = images
    by_blur = []
    for _ in range(4):
        by_blur.append(evaluator.evaluate(NoisyCopies(blurred, labels, 0), data, **QUIET).metrics)
        blurred = F.avg_pool2d(F.pad(blurred, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    for series in (by_noise, by_blur):
        for distance in ("frechet_distance", "kernel_distance"):
            values = [metrics[distance] for metrics in series]
            assert values == sorted(values)
            assert values[-1] > 2 * values[0]
        assert series[-1]["coverage"] < series[0]["coverage"]


def test_missing_class_is_reported_by_name(evaluator, data, train_images):
    images, labels = train_images
    kept = labels != data.class_names.index("trouser")
    found = evaluator.evaluate(NoisyCopies(images[kept], labels[kept], 0), data, **QUIET)
    assert found.classes["missing"] == ["trouser"]
    assert found.metrics["missing_classes"] == 1
    assert sum(found.classes["histogram"].values()) == 400
    complete = evaluator.evaluate(NoisyCopies(images, labels, 0), data, **QUIET)
    assert complete.classes["missing"] == complete.classes["rare"] == []


def test_stamp_says_how_the_number_came_about(evaluator, model, data):
    model.weights = "ema 0.999"
    found = evaluator.evaluate(model, data, **QUIET)
    stamp = found.protocol
    assert stamp["extractor"] == "fashion"
    assert len(stamp["extractor_sha256"]) == 64
    assert (stamp["num_real"], stamp["num_fake"], stamp["num_floor"]) == (500, 400, [278, 222])
    assert stamp["split"] == stamp["data"]["split"] == "test"
    assert stamp["weights"] == "ema 0.999"
    assert (stamp["sampler"], stamp["evaluations"]) == ("copies", 1)
    assert stamp["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert set(stamp["floor"]) == set(found.metrics) - {"missing_classes"}
    assert Evaluation(**json.loads(json.dumps(found.to_dict()))) == found


def test_same_seed_same_samples_and_the_random_state_stays(evaluator, model, data):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = evaluator.evaluate(model, data, **QUIET)
    assert torch.equal(torch.rand(3), expected)
    assert evaluator.evaluate(model, data, **QUIET) == first
    evaluator.seed = 1
    assert evaluator.evaluate(model, data, **QUIET).metrics != first.metrics


def test_a_sample_method_that_ignores_its_generator_is_seeded_too(evaluator, model, data):
    model.sample = lambda n, y=None, *, generator=None: torch.rand(n, 1, 28, 28) * 2 - 1
    first = evaluator.evaluate(model, data, **QUIET)
    torch.rand(7)
    assert evaluator.evaluate(model, data, **QUIET) == first


def test_nothing_of_the_evaluation_gets_into_the_model(evaluator, model, data):
    model.train()
    before = copy.deepcopy(model.state_dict())
    model.evaluator = evaluator
    evaluator.evaluate(model, data, **QUIET)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert model.batch_norm.training


def test_real_features_and_floor_are_computed_once(evaluator, model, data, tmp_path):
    data.loads.clear()
    first = evaluator.evaluate(model, data, **QUIET)
    assert set(data.loads) == {"test"}
    data.loads.clear()
    again = Evaluator(num_samples=400, num_real=500, batch_size=100, cache_dir=str(tmp_path))
    assert again.evaluate(model, data, **QUIET) == first
    assert data.loads == []


def test_a_change_of_what_decides_them_makes_new_real_features(evaluator, model, data, tmp_path, monkeypatch):
    common = {"num_samples": 400, "batch_size": 100, "cache_dir": str(tmp_path)}
    evaluator.evaluate(model, data, **QUIET)
    fewer = Evaluator(num_real=300, **common)
    other = Evaluator(num_real=500, extractor=nn.Sequential(nn.AvgPool2d(7), nn.Flatten()), **common)
    for changed in (fewer, other):
        data.loads.clear()
        changed.evaluate(model, data, **QUIET)
        assert "test" in data.loads
    monkeypatch.setattr(data, "fingerprint", lambda split, limit=None: "of other data")
    data.loads.clear()
    evaluator.evaluate(model, data, **QUIET)
    assert "test" in data.loads


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * 100])
def test_a_damaged_cache_file_is_computed_again(evaluator, model, data, damage):
    first = evaluator.evaluate(model, data, **QUIET)
    contents = [path.read_bytes() for path in cache_files(evaluator)]
    assert len(contents) == 2
    for path in cache_files(evaluator):
        path.write_bytes(damage(path.read_bytes()))
    assert evaluator.evaluate(model, data, **QUIET) == first
    assert [path.read_bytes() for path in cache_files(evaluator)] == contents


def test_a_cache_that_cannot_be_written_costs_no_result(model, data, tmp_path):
    (tmp_path / "file").touch()
    evaluator = Evaluator(num_samples=20, num_real=20, cache_dir=str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="real features are not cached"):
        evaluator.evaluate(model, data, **QUIET)


def test_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LIT_GENERATIVE_CACHE", str(tmp_path))
    assert Evaluator().cache.folder == tmp_path
    monkeypatch.delenv("LIT_GENERATIVE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert Evaluator().cache.folder == Path.home() / ".cache" / "lit_generative"


def test_too_few_samples_are_marked(model, tmp_path):
    data = ImageDataModule(subset=30)
    found = Evaluator(num_samples=40, num_real=60, cache_dir=str(tmp_path)).evaluate(model, data, **QUIET)
    text = "\n".join(found.warnings)
    assert "40 images for 64 features: their covariance is singular" in text
    assert "40 samples against 60 real images" in text
    few = Evaluator(num_samples=40, num_real=11, cache_dir=str(tmp_path)).evaluate(model, data, **QUIET)
    assert "there is no floor: 11 real images are too few to split" in few.warnings
    assert few.protocol["floor"] == {}


def test_samples_that_are_not_finite_are_counted_and_do_not_stop_a_run(evaluator, model, data):
    model.sample = lambda n, y=None, *, generator=None: torch.full((n, 1, 28, 28), torch.nan)
    found = evaluator.evaluate(model, data, **QUIET)
    assert found.warnings[0].startswith("400 of 400 samples have values that are not finite")
    assert found.metrics["frechet_distance"] > 10
    assert found.metrics["precision"] == 0


def test_conditional_models_get_the_labels_of_the_real_images(evaluator, data, train_images):
    model = NoisyCopies(*train_images, num_classes=10)
    found = evaluator.evaluate(model, data, **QUIET)
    drawn = torch.cat(model.drawn).bincount(minlength=10)
    real = torch.full((10,), 50)
    assert (drawn - real * 400 / 500).abs().max() <= 1
    assert len(model.drawn[0].unique()) == 10  # mixed within a batch
    assert found.protocol["labels"] == "as real"
    with pytest.raises(ValueError, match="num_classes=7, but fashion-mnist has 10"):
        evaluator.evaluate(NoisyCopies(*train_images, num_classes=7), data, **QUIET)


class AsAsked(NoisyCopies):
    """Copies of images of the classes asked for, or of the next ones."""

    shift = 0

    @sampling_mode
    def sample(self, n, y=None, *, generator=None):
        asked = (y + self.shift) % 10
        index = [int(torch.multinomial((self.labels == k).float(), 1, generator=generator)) for k in asked]
        return self.images[index]


def test_the_class_accuracy_is_that_of_the_classes_asked_for(evaluator, data, train_images):
    model = AsAsked(*train_images, num_classes=10)
    assert evaluator.evaluate(model, data, **QUIET).metrics["class_accuracy"] > 0.85
    model.shift = 1
    assert evaluator.evaluate(model, data, **QUIET).metrics["class_accuracy"] < 0.1
    unconditional = evaluator.evaluate(NoisyCopies(*train_images), data, **QUIET)
    assert "class_accuracy" not in unconditional.metrics


def test_samples_of_another_shape_are_an_error(evaluator, data, train_images):
    images, labels = train_images
    with pytest.raises(ValueError, match=r"samples have shape \(100, 1, 14, 14\)"):
        evaluator.evaluate(NoisyCopies(images[..., ::2, ::2], labels), data, **QUIET)


def test_check_finds_an_extractor_that_cannot_take_the_images_before_anything_is_sampled(data):
    with pytest.raises(ValueError, match=r"extractor 'Sequential' cannot take images of shape \(1, 28, 28\)"):
        Evaluator(extractor=nn.Sequential(nn.Conv2d(3, 8, 3))).check(data)
    with pytest.raises(FileNotFoundError, match=r"mine.safetensors does not exist"):
        Evaluator(extractor="mine.safetensors").check(data)


@pytest.mark.parametrize(
    ("argument", "value"), [("num_samples", 5), ("num_real", 0), ("batch_size", 0), ("seed", -1), ("split", "train")]
)
def test_arguments_out_of_range_are_errors_that_name_them(argument, value):
    with pytest.raises(ValueError, match=f"{argument}={value!r}: it must be"):
        Evaluator(**{argument: value})
