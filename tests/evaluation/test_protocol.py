import copy
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from stand_ins import NoisyCopies
from torch import nn

from lit_generative.data import ImageDataModule
from lit_generative.evaluation import Evaluation, Evaluator, Extractor, load_extractor
from lit_generative.evaluation.floor import real_floor
from lit_generative.evaluation.metrics import sample_quality
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


class Overflowing(nn.Module):
    """Its features of dark images are infinite."""

    def forward(self, images):
        return images.mean(dim=(2, 3)).add(0.5).log().expand(-1, 3) * torch.tensor([1.0, 2.0, 3.0])


def test_features_that_are_not_finite_are_said_and_stop_no_run(model, data, tmp_path):
    options = {"num_samples": 60, "num_real": 60, "cache_dir": str(tmp_path)}
    with pytest.raises(ValueError, match=r"extractor 'Overflowing' gives features that are not finite for \d+ of 60"):
        Evaluator(extractor=Extractor(Overflowing()), **options).evaluate(model, data, **QUIET)
    model.sample = lambda n, y=None, *, generator=None: torch.full((n, 1, 28, 28), -1.0)
    found = Evaluator(extractor=Extractor(Bright()), **options).evaluate(model, data, halves=3, **QUIET)
    assert "the extractor gives 60 of 60 samples features that are not finite: no distance is defined" in found.warnings
    assert all(math.isnan(value) for value in found.metrics.values())
    assert found.errors == {}


class Bright(nn.Module):
    """Its features of black images alone are infinite."""

    def forward(self, images):
        return images.add(1).mean(dim=(2, 3)).log() * torch.tensor([1.0, 2.0, 3.0])


def test_samples_are_rounded_to_levels_for_every_extractor(evaluator, model, data, train_images):
    images = train_images[0]
    evaluator.extractor = Extractor(nn.Sequential(nn.AvgPool2d(7), nn.Flatten()))
    found, seen = [], []
    for offset in (0.0, 0.3 / 255):
        batches = iter((images[:400] * 0.5 + offset).split(100))
        exact = [((batch + 1) * 127.5).round() / 127.5 - 1 for batch in (images[:400] * 0.5).split(100)]
        model.sample = lambda n, y=None, *, generator=None, batches=batches: next(batches)
        evaluation = evaluator.evaluate(model, data, on_samples=lambda x, _: seen.append(x), **QUIET)
        found.append(evaluation.protocol["levels"])
    levels = (torch.cat(seen) + 1) * 127.5
    assert (levels - levels.round()).abs().max() < 1e-4
    torch.testing.assert_close(torch.cat(seen[:4]), torch.cat(exact), rtol=0, atol=1e-6)
    assert found == [256, 256]


def test_speed_leaves_out_the_first_batch_and_what_is_not_sampling(evaluator, model, data, monkeypatch):
    clock, calls, own = [0.0], [], model.sample

    def sample(n, y=None, *, generator=None):
        calls.append(n)
        clock[0] += 1000.0 if len(calls) == 1 else 2.0
        return own(n, y, generator=generator)

    def slow(images, features):
        clock[0] += 50.0

    monkeypatch.setattr("lit_generative.evaluation.protocol.perf_counter", lambda: clock[0])
    model.sample = sample
    assert evaluator.evaluate(model, data, on_samples=slow, **QUIET).images_per_second == pytest.approx(50)
    assert len(calls) == 4


def test_a_device_is_waited_for_before_and_after_each_batch(monkeypatch):
    events = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: events.append("wait"))
    monkeypatch.setattr("lit_generative.evaluation.protocol.perf_counter", lambda: events.append("look") or 0.0)
    monkeypatch.setattr("torch.Generator", lambda device: SimpleNamespace(manual_seed=lambda seed: None))
    model = SimpleNamespace(device=torch.device("cuda"), sample=lambda n, y, generator: events.append("draw"))
    Evaluator()._draw(model, 0, 5, None)
    assert events == ["wait", "look", "draw", "wait", "look"]


def test_duplicates_among_real_images_are_said(model, data, tmp_path, monkeypatch):
    batches = list(data.loader("test", limit=50))
    many = {name: torch.cat([batch[name] for batch in batches])[:10].repeat(10, *[1] * n) for name, n in SIZES.items()}
    monkeypatch.setattr(data, "loader", lambda split, **options: [many])
    monkeypatch.setattr(data, "fingerprint", lambda split, limit=None: "duplicates")
    found = Evaluator(num_samples=100, cache_dir=str(tmp_path)).evaluate(model, data, **QUIET)
    assert found.metrics["density"] == 0
    assert any(warning.startswith("100% of the real images occur more than 5 times") for warning in found.warnings)


SIZES = {"image": 3, "label": 0}


def test_an_extractor_of_other_classes_gives_no_class_accuracy(evaluator, data, train_images, monkeypatch):
    model = NoisyCopies(*train_images, num_classes=10)
    digits = list(map(str, range(10)))
    monkeypatch.setattr(type(data), "class_names", property(lambda self: digits))
    found = evaluator.evaluate(model, data, **QUIET)
    assert "class_accuracy" not in found.metrics
    (warning,) = (warning for warning in found.warnings if "class accuracy" in warning)
    assert "extractor fashion tells 10 classes" in warning
    assert "the data have 10 (0, 1, 2, …)" in warning


def test_the_floor_is_what_other_real_images_get(data, tmp_path):
    """Half of the test images as samples against the other half, many times, is where the floor says it is."""
    images = torch.cat([batch["image"] for batch in data.loader("test")])
    extractor = load_extractor("fashion")
    features = torch.cat([extractor(part) for part in images.split(500)])
    floor = real_floor(features[:1000], 1000)  # knows these alone
    draw = torch.Generator().manual_seed(1)
    found = []
    for _ in range(8):
        order = torch.randperm(2000, generator=draw)
        found.append(sample_quality(features[order[:1000]], features[order[1000:]]))
    for name in ("frechet_distance", "precision", "recall", "density", "coverage"):
        values = torch.stack([metrics[name] for metrics in found])
        mean, spread = floor[name]
        slack = 0.015 if name in ("precision", "recall") else 0.0  # too high in smaller sets
        assert abs(values.mean() - mean) < 2 * spread + 2 * values.std() / 8**0.5 + slack, name
        assert 0.3 < values.std() / spread < 3, name


def test_the_floor_depends_on_no_order_and_keeps_the_classes(real_images):
    features, labels = real_images[0].flatten(1)[:, ::20], real_images[1]
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(3))
    one, other = real_floor(features, 400, None, labels), real_floor(features[order], 400, None, labels[order])
    for name, value in one.items():
        torch.testing.assert_close(other[name], value)
    assert one["frechet_distance"][0] < real_floor(features, 400)["frechet_distance"][0]
    assert real_floor(features[:11], 400) == {}


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


def test_distances_by_class_are_of_those_asked_for_or_of_those_seen(evaluator, data, train_images):
    evaluator.extended = True
    model = AsAsked(*train_images, num_classes=10)
    good = evaluator.evaluate(model, data, **QUIET)
    assert set(good.classes["distances"]) == set(data.class_names)
    assert good.metrics["vendi_score"] == pytest.approx(good.protocol["floor"]["vendi_score"], rel=0.2)
    model.shift = 1
    bad = evaluator.evaluate(model, data, **QUIET)
    for name, found in bad.classes["distances"].items():
        assert found["kernel_distance"] > 10 * good.classes["distances"][name]["kernel_distance"]
    images, labels = train_images
    spoilt = images.clone()
    spoilt[labels == 0] = spoilt[labels == 0].flip(-2)
    seen = evaluator.evaluate(NoisyCopies(spoilt, labels), data, **QUIET).classes["distances"]
    assert max(found["kernel_distance"] for found in seen.values()) > 0.1
    real = evaluator.evaluate(NoisyCopies(images, labels, 0), data, **QUIET).metrics
    assert real["frechet_infinity"] < real["frechet_distance"]


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
