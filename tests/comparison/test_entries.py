"""What entries are called, which are seeds of one model, and what their folders say of the training."""

import json

import pytest
import torch
from PIL import Image

from lit_generative import VAE
from lit_generative.checkpoints import pack
from lit_generative.comparison.entries import find_entries
from lit_generative.comparison.folder_model import ImagesOf
from lit_generative.comparison.history import read_training
from lit_generative.data import ImageDataModule


class WarmVAE(VAE):
    """A user's own."""


@pytest.fixture
def save(tmp_path, make_vae):
    """Save a small VAE as ``version_N/checkpoints/last.ckpt`` of a run, or anywhere."""

    def save(path, *, seed=0, cls=VAE, num_classes=None, data=None, images=1000, callbacks=None, **state):
        model = make_vae(cls, num_classes)
        for name, value in state.items():
            setattr(model, name, value)
        model.noise_seed, model.images_seen = seed, images
        checkpoint = {"state_dict": model.state_dict(), "callbacks": callbacks or {}}
        pack(checkpoint, model, data or ImageDataModule())
        path = tmp_path / path
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, path)
        return path

    return save


def names(paths, given=None):
    return [entry.name for entry in find_entries(paths, given)]


def last(run, version=0):
    return f"{run}/version_{version}/checkpoints/last.ckpt"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (last("runs/vae/fashion"), "vae/fashion"),
        (last("seed_0/diffusion/fashion-long", 12), "diffusion/fashion-long"),
        (last("runs/mine"), "mine"),
        (last("lightning_logs"), "WarmVAE"),
        ("checkpoints/last.ckpt", "WarmVAE"),
        ("saved.ckpt", "WarmVAE"),
    ],
)
def test_a_checkpoint_is_called_as_its_run_or_else_as_its_class(save, path, name):
    assert names([save(path, cls=WarmVAE)]) == [name]


def test_seeds_of_one_model_have_one_name_and_others_a_number(save):
    paths = [
        save(last("a/vae/x", 0), seed=0, data=ImageDataModule(seed=3)),
        save(last("a/vae/x", 1), seed=1),
        save(last("b/vae/x"), seed=1),  # as the one before, trained again
        save(last("c/vae/x"), seed=2, num_classes=10),
        save(last("d/vae/x"), seed=3, cls=WarmVAE),
        save(last("e/vae/x"), seed=4, data=ImageDataModule(subset=500)),
        save(last("f/vae/x"), seed=5, num_classes=10),
        save(last("vae/y"), seed=6),
    ]
    found = find_entries(paths)
    assert [entry.name for entry in found] == [
        "vae/x",
        "vae/x",
        "vae/x (2)",
        "vae/x (3)",
        "vae/x (4)",
        "vae/x (5)",
        "vae/x (3)",
        "vae/y",
    ]
    assert [entry.seed for entry in found] == [0, 1, 1, 2, 3, 4, 5, 6]
    assert found[0].data["init_args"]["seed"] == 3


@pytest.mark.parametrize("change", [{"images": 2000}, {"precision": "bf16-mixed"}, {"weights": "ema 0.999"}])
def test_another_length_precision_or_kind_of_weights_is_another_model(save, change):
    paths = [save(last("a/vae/x", 0), seed=0), save(last("a/vae/x", 1), seed=1, **change)]
    assert names(paths) == ["vae/x", "vae/x (2)"]
    is_length = "images" in change
    cut_short = [entry.name for entry in find_entries(paths, cut_short=paths[1:])]
    assert (cut_short == ["vae/x", "vae/x"]) == is_length


def test_given_names_count_and_must_be_as_many(save):
    paths = [save("a.ckpt", seed=0), save("b.ckpt", seed=1), save("c.ckpt", seed=1)]
    assert names(paths, ["one", "two", "two"]) == ["one", "two", "two (2)"]
    with pytest.raises(ValueError, match="names has 2 names for 3 models; give one for each, or none"):
        find_entries(paths, ["one", "two"])


def test_entries_load_as_what_they_are(save, tmp_path):
    Image.new("L", (28, 28)).save(tmp_path / "0.png")
    checkpoint, folder = find_entries([save("x/a.ckpt", cls=WarmVAE, seed=7), tmp_path])
    model = checkpoint.load((1, 28, 28))
    assert type(model) is WarmVAE
    assert model.noise_seed == 7
    assert folder.name == tmp_path.name
    assert (folder.seed, folder.data) == (None, None)
    assert isinstance(folder.load((1, 28, 28)), ImagesOf)


def test_what_cannot_take_part_is_an_error_at_once(save, tmp_path):
    path = save("a.ckpt")
    with pytest.raises(ValueError, match=r"a.ckpt is given twice; name it once"):
        find_entries([path, tmp_path / "x" / ".." / "a.ckpt"])
    with pytest.raises(FileNotFoundError, match=r"nothing.ckpt: there is no such file"):
        find_entries([path, tmp_path / "nothing.ckpt"])
    (tmp_path / "b.ckpt").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"b.ckpt is refused: it is damaged"):
        find_entries([path, tmp_path / "b.ckpt"])


def record(images, distance, split="val", **additions):
    protocol = {"split": split, "evaluations": 1}
    return {"images_seen": images, "metrics": {"frechet_distance": distance}, "protocol": protocol} | additions


def write_run(path, records, resumed_from=None):
    run = path.parent.parent
    (run / "evaluation.json").write_text(json.dumps(records))
    config = "null" if resumed_from is None else resumed_from
    (run / "config.yaml").write_text(f"# lightning.pytorch==2.6.6\nseed_everything: 0\nckpt_path: {config}\n")


def test_the_history_is_the_validation_records_of_all_versions_that_the_run_went_on_from(save):
    first, second, third = (save(last("runs/vae/x", version), images=500) for version in (0, 1, 2))
    stranger = save(last("runs/vae/x", 3), images=500)
    write_run(first, [record(100, 9.0), record(200, 5.0), record(300, 4.0)])
    write_run(second, [record(300, 4.5, training_minutes=1.5), record(400, 3.0)], last("runs/vae/x", 0))
    write_run(third, [record(500, 2.0, images_per_second=7.0), record(500, 2.5, split="test")], f"elsewhere/{second}")
    write_run(stranger, [record(150, 8.0)])
    history = read_training(third).history
    assert [point.images for point in history] == [100, 200, 300, 400, 500]
    assert [point.metrics["frechet_distance"] for point in history] == [9.0, 5.0, 4.5, 3.0, 2.0]
    assert [point.minutes for point in history] == [None, None, 1.5, None, None]
    assert history[-1].images_per_second == 7.0
    assert [point.images for point in read_training(first).history] == [100, 200, 300]
    assert [point.images for point in read_training(stranger).history] == [150]


def test_minutes_are_those_of_the_checkpoint_and_the_verdict_is_the_last(save):
    clock = {"TrainingClock": {"seconds": 90.0, "device_seconds": 180.0}}
    path = save(last("runs/gan/x"), images=640, callbacks=clock)
    healthy = {"verdict": "healthy", "signs": {"is_finite": True}}
    diverged = {"verdict": "diverged", "signs": {"is_finite": False}}
    write_run(path, [record(300, 4.0, health=healthy), {"images_seen": 700, "step": 7, "health": diverged}])
    found = read_training(path)
    assert (found.images, found.minutes, found.device_minutes) == (640, 1.5, 3.0)
    assert (found.verdict, found.is_finite) == ("diverged", False)
    assert [point.images for point in found.history] == [300]


def test_what_is_not_known_is_none(save, tmp_path):
    found = read_training(save("alone.ckpt", images=64))
    assert (found.images, found.minutes, found.device_minutes, found.verdict) == (64, None, None, None)
    assert found.history == []
    assert found.is_finite
    assert read_training(tmp_path) is None
    path = save(last("runs/vae/x"), callbacks={"TrainingClock": {"seconds": None, "device_seconds": 3.0}})
    (path.parent.parent / "config.yaml").write_text("[written by hand")
    assert read_training(path).minutes is None
