"""The data module: values, splits, identity, and arguments that make no sense."""

import jsonargparse
import lightning as L
import pytest
import torch

from lit_generative.data import ImageDataModule
from lit_generative.description import describe, rebuild


def train_on(data, epochs=1):
    """All training batches."""
    loader = data.train_dataloader()
    return [batch for _ in range(epochs) for batch in loader]


def numbers(images):
    """Images as hashable values."""
    return {image.numpy().tobytes() for image in images}


def test_values_are_exact_and_span_the_range(fashion, pictures):
    images = next(iter(fashion.loader("test", batch_size=30)))["image"]
    assert images.dtype == torch.float32
    assert images.min() == -1
    assert images.max() == 1
    steps = (images + 1) * 127.5
    assert (steps - steps.round()).abs().max() < 1e-4


def test_splits_are_disjoint_balanced_and_independent_of_the_seed(fashion):
    other = ImageDataModule(seed=7)
    images = {s: torch.cat([b["image"] for b in fashion.loader(s)]) for s in ("train", "val")}
    assert not numbers(images["train"]) & numbers(images["val"])
    assert torch.cat([b["label"] for b in fashion.loader("val")]).bincount().tolist() == [100] * 10
    assert (torch.cat([b["image"] for b in other.loader("val")]) == images["val"]).all()


def test_training_order_is_decided_by_the_seed():
    a, b, c = (train_on(ImageDataModule(subset=300, batch_size=100, seed=seed), epochs=2) for seed in (1, 1, 2))
    assert all((x["image"] == y["image"]).all() for x, y in zip(a, b, strict=True))
    assert not all((x["image"] == y["image"]).all() for x, y in zip(a, c, strict=True))


def test_subset_has_equally_many_of_each_class_and_grows():
    small, large = ImageDataModule(subset=50), ImageDataModule(subset=100)
    assert torch.cat([b["label"] for b in small.loader("train")]).bincount().tolist() == [5] * 10
    images = [numbers(torch.cat([b["image"] for b in data.loader("train")])) for data in (small, large)]
    assert images[0] < images[1]
    assert small.num_images("test") == 2000


def test_flip_mirrors_about_half_and_only_in_training(folder):
    plain = ImageDataModule(str(folder), subset=20)
    flipped = ImageDataModule(str(folder), subset=20, random_flip=True)
    originals = torch.cat([b["image"] for b in plain.loader("train")])
    mirrored = originals.flip(-1)
    seen = [image for batch in train_on(flipped, epochs=20) for image in batch["image"]]
    kept = sum(bool((image == originals).all((1, 2, 3)).any()) for image in seen)
    turned = sum(bool((image == mirrored).all((1, 2, 3)).any()) for image in seen)
    assert kept + turned == len(seen)
    assert 0.4 < kept / len(seen) < 0.6
    assert (torch.cat([b["image"] for b in flipped.loader("train")]) == originals).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_images_are_the_same_in_memory_and_from_workers(folder, workers):
    options = {"random_flip": True, "batch_size": 4}
    memory = train_on(ImageDataModule(str(folder), in_memory=True, **options))
    lazy = train_on(ImageDataModule(str(folder), in_memory=False, num_workers=workers, **options))
    for a, b in zip(memory, lazy, strict=True):
        assert (a["image"] == b["image"]).all()
        assert (a["label"] == b["label"]).all()


def test_budget_decides_what_is_in_memory(folder):
    needed = 30 * 28 * 28 / 2**30
    for factor, kind in ((1.01, "DecodedImages"), (0.99, "EncodedImages")):
        data = ImageDataModule(str(folder), memory_budget=needed * factor, num_workers=0)
        assert type(data.loader("val").dataset).__name__ == kind


def test_limit_takes_the_same_images_with_the_classes_in_proportion(fashion):
    loader = fashion.loader("test", batch_size=64, limit=500)
    first, second = ([b["label"] for b in loader] for _ in range(2))
    assert torch.cat(first).bincount().tolist() == [50] * 10
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_fingerprint_is_stable_and_sees_every_change(folder):
    original = ImageDataModule(str(folder)).fingerprint("train")
    assert original == ImageDataModule(str(folder), batch_size=3, num_workers=0, seed=9).fingerprint("train")
    changed = [{"image_size": 16}, {"channels": 3}, {"background": "black"}, {"subset": 10}, {"val_fraction": 0.2}]
    others = [ImageDataModule(str(folder), **change).fingerprint("train") for change in changed]
    others += [ImageDataModule(str(folder)).fingerprint("val"), ImageDataModule(str(folder)).fingerprint("train", 5)]
    (folder / "odd" / "01.png").write_bytes((folder / "odd" / "03.png").read_bytes())
    others += [ImageDataModule(str(folder)).fingerprint("train")]
    assert len({original, *others}) == len(others) + 1


def test_protocol_states_where_a_split_comes_from(fashion, folder):
    assert fashion.protocol("test")["source_split"] == "test"
    assert fashion.protocol("val")["source_split"] == "10% of train, always the same"
    assert fashion.protocol("test")["num_images"] == 2000
    small = ImageDataModule(str(folder), image_size=16).protocol("test")
    assert small["source_split"] == "10% of train, always the same"
    assert small["resizing"] == "PIL, bicubic, antialiased; centre crop"


def test_missing_test_split_is_the_validation_split(folder, tmp_path):
    for split in ("train", "val"):
        (tmp_path / "split").mkdir(exist_ok=True)
        (tmp_path / "split" / split).symlink_to(folder)
    data = ImageDataModule(str(tmp_path / "split"))
    assert data.protocol("test")["source_split"] == "val"
    assert data.num_images("train") == data.num_images("test") == 30


def test_shares_of_few_images_are_disjoint_and_not_empty(folder):
    data = ImageDataModule(str(folder), val_fraction=0.04)
    images = [numbers(torch.cat([b["image"] for b in data.loader(s)])) for s in ("train", "val", "test")]
    assert all(images)
    assert len(set.union(*images)) == sum(map(len, images)) == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 0}, "image_size=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"subset": 0}, "subset=0"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"val_fraction": 0.5}, "val_fraction=0.5"),
        ({"channels": 2}, "channels=2"),
        ({"in_memory": "yes"}, "in_memory='yes'"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"background": "whitish"}, "background='whitish'"),
        ({"streaming": True, "subset": 5}, "streaming"),
        ({"dataset": ""}, "dataset"),
    ],
)
def test_meaningless_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageDataModule(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subset": 10_000}, "subset=10,000 is more than the 9,000"),
        ({"val_split": "dev"}, "val_split='dev' does not exist; the splits are: test, train"),
        ({"test_split": "train"}, "test_split='train' is the training split"),
        ({"streaming": True}, "streaming=True"),
    ],
)
def test_arguments_that_do_not_fit_the_data_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        _ = ImageDataModule(**arguments).image_shape


def test_unknown_split_is_refused(fashion):
    with pytest.raises(ValueError, match="split='dev' is none of train, val, test"):
        fashion.loader("dev")


def test_is_built_from_yaml_and_described_as_plain_data():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ImageDataModule, "data")
    parsed = parser.parse_string("data:\n  in_memory: false\n  channels: 3\n  label_column: null\n  image_size: 16")
    data = parser.instantiate(parsed).data
    assert data.image_shape == (3, 16, 16)
    assert data.num_classes is None
    assert rebuild(describe(data)).fingerprint("test") == data.fingerprint("test")


def test_every_argument_is_explained():
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(ImageDataModule, "data")
    undocumented = [a.dest for a in parser._actions if a.dest.startswith("data.") and not (a.help or "").strip("(% )")]
    assert undocumented == []


def test_overfitting_repeats_the_same_whole_batches(make_trainer):
    seen = []

    class Watch(L.LightningModule):
        def training_step(self, batch):
            seen.append(batch["image"])
            return torch.zeros((), requires_grad=True)

        def validation_step(self, batch):
            pass

        def configure_optimizers(self):
            return torch.optim.SGD([torch.zeros((), requires_grad=True)])

    trainer = make_trainer(overfit_batches=2, max_epochs=2, limit_val_batches=0)
    trainer.fit(Watch(), datamodule=ImageDataModule(subset=100, batch_size=10))
    assert [len(batch) for batch in seen] == [10] * 4
    assert all((a == b).all() for a, b in zip(seen[:2], seen[2:], strict=True))
