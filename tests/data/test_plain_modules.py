"""A user's LightningDataModule, which knows nothing of this package, trains every family and is evaluated."""

import json
from collections import Counter
from itertools import chain

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, SubsetRandomSampler

from lit_generative import DDPM, Evaluator, ImageDataModule
from lit_generative.callbacks import EstimateLikelihood, Evaluate, SampleGrid
from lit_generative.cli import main
from lit_generative.contracts import as_batch
from lit_generative.data import GaussianRing, adapter, image_data
from lit_generative.diffusion import DDIM, DenoisingPictures
from lit_generative.gan import GANHealth
from lit_generative.nn import MLPDecoder, MLPEncoder, UNet
from lit_generative.vae import VAE, AggregatePrior, DiscretizedLogisticLikelihood

SHAPE = (1, 28, 28)
EVALUATOR = {"extractor": "fashion", "num_samples": 12, "batch_size": 6}


class Items(Dataset):
    """Images and labels as dicts, as tuples, or images alone."""

    def __init__(self, images, labels, kind):
        self.images, self.labels, self.kind = images, labels, kind

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        x, y = self.images[i], self.labels[i]
        return {"dict": {"image": x, "label": y, "file": f"{i}.png"}, "tuple": (x, y), "image": x}[self.kind]


class OnlyTrains(L.LightningDataModule):
    """It can train, and nothing else."""

    def __init__(self, images, labels, kind="tuple", batch_size=20):
        super().__init__()
        self.save_hyperparameters("kind", "batch_size")
        self.images, self.labels, self.kind, self.batch_size = images, labels, kind, batch_size
        self.stages = Counter()

    def setup(self, stage):
        self.stages[stage] += 1
        parts = {"fit": {"fitted": slice(0, 60), "held_out": slice(60, 90)}, "test": {"tested": slice(90, 120)}}
        for name, part in parts.get(stage, {}).items():
            setattr(self, name, Items(self.images[part], self.labels[part], self.kind))

    def train_dataloader(self):
        return DataLoader(self.fitted, self.batch_size, shuffle=True, drop_last=True)


class Validates(OnlyTrains):
    def val_dataloader(self):
        return DataLoader(self.held_out, self.batch_size)


class Complete(Validates):
    def test_dataloader(self):
        return DataLoader(self.tested, self.batch_size)


class Labelled(Complete):
    num_classes = 10


@pytest.fixture(scope="module")
def images():
    batch = next(iter(ImageDataModule(subset=120).loader("train", batch_size=120)))
    return batch["image"], batch["label"]


@pytest.fixture
def make_model(make_gan):
    """Make a model of a family, and what watches it in training."""

    def make(family, num_classes=None):
        torch.manual_seed(0)
        if family == "gan":
            return make_gan(num_classes=num_classes), GANHealth(num_samples=4)
        if family == "ddpm":
            network = UNet(SHAPE, widths=(4, 8), blocks=1, groups=2, attention=(), num_classes=num_classes)
            model = DDPM(network, SHAPE, sampler=DDIM(2), num_classes=num_classes)
            return model, DenoisingPictures(num_images=2, num_frames=2, num_levels=2, num_held_out=2)
        networks = (cls(SHAPE, 4, hidden=(16,), num_classes=num_classes) for cls in (MLPEncoder, MLPDecoder))
        prior = None if num_classes else AggregatePrior(components=2, num_images=50)
        model = VAE(*networks, DiscretizedLogisticLikelihood(), 4, aggregate_prior=prior, num_classes=num_classes)
        return model, EstimateLikelihood(num_images=4, evaluations=2)

    return make


def values(loader):
    return [image.sum().item() for batch in loader for image in batch["image"]]


# ------------------------------------------------------------------ training and evaluation


@pytest.mark.parametrize("family", ["vae", "gan", "ddpm"])
@pytest.mark.parametrize(("kind", "num_classes"), [("dict", None), ("dict", 10), ("tuple", 10), ("image", None)])
def test_every_family_trains_and_is_evaluated(make_model, make_trainer, images, tmp_path, family, kind, num_classes):
    data = (Labelled if num_classes else Complete)(*images, kind)
    model, watch = make_model(family, num_classes)
    callbacks = [watch, SampleGrid(4), Evaluate(Evaluator(**EVALUATOR), every_n_epochs=1)]
    make_trainer(callbacks=callbacks, max_epochs=2).fit(model, datamodule=data)
    make_trainer(callbacks=[Evaluate(Evaluator(**EVALUATOR)), EstimateLikelihood(4, 2)]).test(model, datamodule=data)
    assert model.images_seen == 2 * 60
    records = [r for r in json.loads((tmp_path / "evaluation.json").read_text()) if "metrics" in r]
    for record, split in zip(records, ["val", "val", "test"], strict=True):
        stamp = record["protocol"]
        assert record["metrics"]["frechet_distance"] > 0
        assert (stamp["split"], stamp["num_real"], stamp["num_floor"]) == (split, 30, [21, 9])
        assert stamp["data"]["dataset"] == type(data).__name__
        assert stamp["labels"] == ("as real" if num_classes else None)
    assert "test/loss" in records[-1]["losses"]
    assert len(list((tmp_path / "grids").iterdir())) == 2
    assert (tmp_path / "likelihood.json").is_file() == (family != "gan")


def test_evaluating_does_not_disturb_the_training(make_vae, make_trainer, images):
    finals = []
    for callbacks in ([Evaluate(Evaluator(**EVALUATOR), every_n_epochs=1)], []):
        model, data = make_vae(), Complete(*images)
        torch.manual_seed(1)
        make_trainer(callbacks=callbacks, max_epochs=2).fit(model, datamodule=data)
        finals.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*finals)


def test_without_a_data_module_loaders_train_as_in_lightning(make_vae, make_trainer, images):
    data = Complete(*images)
    data.setup("fit")
    model = make_vae()
    make_trainer(max_epochs=1).fit(model, data.train_dataloader(), data.val_dataloader())
    assert model.images_seen == 60


def test_the_command_line_takes_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_data.py").write_text(
        "from torch.utils.data import DataLoader\n"
        "import lightning as L\n"
        "from lit_generative import ImageDataModule\n"
        "class Unshaped(L.LightningDataModule):\n"
        "    def setup(self, stage):\n"
        "        batch = next(iter(ImageDataModule(subset=60).loader('train', batch_size=60)))\n"
        "        self.pairs = list(zip(batch['image'], batch['label']))\n"
        "    def train_dataloader(self): return DataLoader(self.pairs, 20, shuffle=True)\n"
        "    def val_dataloader(self): return DataLoader(self.pairs, 20)\n"
        "    test_dataloader = val_dataloader\n"
        "class Shaped(Unshaped):\n"
        "    image_shape = (1, 28, 28)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    options += ["--evaluation.extractor", "fashion", "--evaluation.num_samples", "12"]
    fit = ["fit", "--config", "vae/mlp", "--trainer.max_epochs", "1", *options]
    assert main([*fit, "--data", "my_data.Unshaped"]) == 1
    assert capsys.readouterr().err.startswith("lit-generative: error: Unshaped has no image_shape: give it")
    assert main([*fit, "--data", "my_data.Shaped"]) == 0, capsys.readouterr().err
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    assert main(["test", "--ckpt_path", str(checkpoint), *options]) == 1
    assert "does not say which data it was trained with: give --data" in capsys.readouterr().err
    data = ["--data", "my_data.Shaped", "--likelihood.num_images", "0"]
    assert main(["test", "--ckpt_path", str(checkpoint), *data, *options]) == 0, capsys.readouterr().err


# ------------------------------------------------------------------ what it lacks


@pytest.mark.parametrize(
    ("data", "num_classes", "message"),
    [
        (OnlyTrains, None, "OnlyTrains has no val_dataloader: give it one"),
        (Complete, 10, "num_classes=10, but Complete has no num_classes: give it that attribute"),
        (Labelled, 7, "num_classes=7, but the data have 10 classes"),
    ],
)
def test_what_is_missing_is_named_before_the_training(make_vae, make_trainer, images, data, num_classes, message):
    model = make_vae(num_classes=num_classes)
    with pytest.raises(ValueError, match=message):
        make_trainer(callbacks=[Evaluate(Evaluator(**EVALUATOR))], max_epochs=1).fit(model, datamodule=data(*images))
    assert model.images_seen == 0


def test_validation_images_are_asked_for_where_they_choose(make_vae, make_trainer, images):
    class Unvalidated(OnlyTrains):
        test_dataloader = Complete.test_dataloader

    evaluate = Evaluate(Evaluator(**EVALUATOR), every_n_epochs=1)
    with pytest.raises(ValueError, match="Unvalidated has no val_dataloader"):
        make_trainer(callbacks=[evaluate], max_epochs=1).fit(make_vae(), datamodule=Unvalidated(*images))


def test_labels_are_missed_in_a_batch(make_vae, make_trainer, images):
    with pytest.raises(ValueError, match=r"num_classes=10, but a batch has no labels: give \(image, label\)"):
        make_trainer(max_epochs=1).fit(make_vae(num_classes=10), datamodule=Labelled(*images, "image"))


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ({"img": torch.zeros(1), "path": "a"}, "{'img': 'Tensor', 'path': 'str'}"),
        ("images", "{'image': 'str'}"),
        ([], "{}"),
    ],
)
def test_a_batch_without_images_says_what_it_is(batch, found):
    with pytest.raises(ValueError, match=f'a batch is {found}: give a dict with the tensors "image" and "label"'):
        as_batch(batch)


def test_a_loader_without_images_is_named(images):
    class Empty(Complete):
        def train_dataloader(self):
            return []

    with pytest.raises(ValueError, match=r"Empty\.train_dataloader gives no images"):
        _ = image_data(Empty(*images)).image_shape


# ------------------------------------------------------------------ as images to evaluate on


def test_what_is_not_declared_is_found_out(images):
    data = image_data(Complete(*images))
    assert (data.name, data.image_shape, data.num_classes, data.class_names) == ("Complete", SHAPE, None, None)
    assert [data.num_images(split) for split in ("train", "val", "test")] == [60, 30, 30]
    declared = image_data(Labelled(*images))
    declared.data.class_names = [*"abcdefghij"]
    declared.data.image_shape = (1, 2, 3)
    assert (declared.image_shape, declared.class_names) == ((1, 2, 3), [*"abcdefghij"])
    assert image_data(Labelled(*images)).class_names == [*"0123456789"]


def test_our_own_data_modules_are_what_they_are():
    for data in (ImageDataModule(subset=10), GaussianRing(num_train=10)):
        assert image_data(data) is data


def test_images_come_in_order_in_batches_of_any_size(images):
    data = image_data(Complete(*images, "dict"))
    expected = [image.sum().item() for image in images[0]]
    assert values(data.loader("train")) == expected[:60]  # not shuffled, and nothing is dropped
    loader = data.loader("test", batch_size=7, limit=24)
    assert values(loader) == values(loader) == expected[90:114]
    assert [len(batch["image"]) for batch in loader] == [7, 7, 7, 3]
    assert next(iter(loader)).keys() == {"image", "label"}
    assert torch.equal(next(iter(loader))["label"], images[1][90:97])


def test_without_test_images_the_validation_images_stand_in(images):
    data = image_data(Validates(*images))
    with pytest.warns(UserWarning, match="no test_dataloader: its validation images stand in"):
        assert values(data.loader("test")) == values(data.loader("val"))
    assert data.protocol("test")["source_split"] == "val"
    assert "chosen" in data.protocol("test")["test_images"]
    assert "test_images" not in data.protocol("val")
    assert data.fingerprint("test") != data.fingerprint("val")  # the split is part of a protocol


def test_another_sampler_is_kept_and_gives_the_same_order_each_time(images):
    class Sampled(Validates):
        def val_dataloader(self):
            return DataLoader(self.fitted, 4, sampler=SubsetRandomSampler(range(10)))

    data = image_data(Sampled(*images))
    before = torch.get_rng_state()
    first, again = values(data.loader("val")), values(data.loader("val"))
    assert first == again
    assert sorted(first) == sorted(image.sum().item() for image in images[0][:10])
    assert data.num_images("val") == 10
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("is_distributed", [False, True])
def test_processes_share_the_images(images, monkeypatch, world, is_distributed):
    class Shared(Complete):
        def test_dataloader(self):
            sampler = DistributedSampler(self.tested, world, rank=0) if is_distributed else None
            return DataLoader(self.tested, 4, sampler=sampler)

    shares = []
    for rank in range(world):
        monkeypatch.setattr(adapter, "rank_and_world", lambda rank=rank: (rank, world))
        shares.append(values(image_data(Shared(*images)).loader("test", batch_size=4, limit=23)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert sorted(chain(*shares)) == sorted(image.sum().item() for image in images[0][90:113])


def test_a_stage_is_set_up_once_and_only_if_the_trainer_has_not(make_vae, make_trainer, images):
    data = Complete(*images)
    evaluate = Evaluate(Evaluator(**EVALUATOR), every_n_epochs=1)
    make_trainer(callbacks=[evaluate], max_epochs=2).fit(make_vae(), datamodule=data)
    assert data.stages == {"fit": 1}  # test images stay closed
    data = Complete(*images)
    evaluate = Evaluate(Evaluator(**EVALUATOR), every_n_epochs=1, split_at_end="test")
    make_trainer(callbacks=[evaluate], max_epochs=2).fit(make_vae(), datamodule=data)
    assert data.stages == {"fit": 1, "test": 1}


def test_fingerprints_tell_data_apart_and_nothing_else(images):
    x, y = images
    others = [Complete(-x, y), Complete(x, y, "dict"), Complete(x[:100], y)]
    prints = [image_data(data).fingerprint("test") for data in (Complete(x, y), *others)]
    data = image_data(Complete(x, y))
    prints += [data.fingerprint("train"), data.fingerprint("test", 5), image_data(Labelled(x, y)).fingerprint("test")]
    assert len(set(prints)) == len(prints)
    assert data.fingerprint("test") == prints[0]
