"""Points of the plane: what is drawn, and that it is handed out as images are."""

import numpy as np
import pytest
import torch

from lit_generative import Described
from lit_generative.data import GaussianGrid, GaussianPoints, GaussianRing
from lit_generative.data.samplers import ShuffledBatches
from lit_generative.description import describe, rebuild


class Pair(GaussianPoints):
    """What a user writes."""

    def centres(self):
        return np.array([[-0.5, 0.0], [0.5, 0.0]])


def everything(data, split="train", **options):
    batches = list(data.loader(split, **options))
    return torch.cat([b["image"] for b in batches]), torch.cat([b["label"] for b in batches])


@pytest.mark.parametrize(
    ("data", "means"),
    [
        (GaussianRing(), {0: (0.8, 0), 1: (0.8 * 0.5**0.5, 0.8 * 0.5**0.5), 2: (0, 0.8), 6: (0, -0.8)}),
        (GaussianGrid(), {0: (-0.8, -0.8), 1: (-0.4, -0.8), 12: (0, 0), 24: (0.8, 0.8)}),
        (Pair(scale=0.05), {0: (-0.5, 0), 1: (0.5, 0)}),
    ],
    ids=["ring", "grid", "pair"],
)
def test_modes_are_equally_likely_and_have_their_mean_and_scale(data, means):
    points, labels = everything(data)
    points = points.flatten(1)
    n = len(points) / data.num_classes
    counts = labels.bincount()
    assert len(counts) == data.num_classes
    assert (counts - n).abs().max() < 5 * n**0.5
    for mode in range(data.num_classes):
        drawn = points[labels == mode]
        expected = torch.tensor(means.get(mode, data.centres()[mode]), dtype=torch.float)
        torch.testing.assert_close(drawn.mean(0), expected, rtol=0, atol=5 * data.scale / n**0.5)
        torch.testing.assert_close(drawn.T.cov(), data.scale**2 * torch.eye(2), rtol=0, atol=8 * data.scale**2 / n**0.5)


def test_a_batch_is_what_a_model_of_images_takes():
    data = GaussianRing(batch_size=32)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        batch = next(iter(loader))
        assert (batch["image"].shape, batch["image"].dtype) == ((32, *data.image_shape), torch.float32)
        assert (batch["label"].shape, batch["label"].dtype) == ((32,), torch.int64)
    assert data.class_names == [f"mode {i}" for i in range(8)]
    assert [data.num_images(split) for split in ("train", "val", "test")] == [50_000, 2000, 2000]


def test_points_stay_in_range(monkeypatch):
    monkeypatch.setattr("lit_generative.data.points._ROOM", 0)  # draws beyond five standard deviations take long
    values = everything(GaussianRing(scale=0.2))[0]
    assert (values.min(), values.max()) == (-1, 1)


def test_splits_are_fixed_and_differ():
    first, again, other = GaussianRing(), GaussianRing(batch_size=7), GaussianRing(seed=1)
    for split in ("train", "val", "test"):
        assert torch.equal(everything(first, split)[0], everything(again, split)[0])
        assert not torch.equal(everything(first, split)[0], everything(other, split)[0])
    val, test = (set(map(tuple, everything(first, split)[0].flatten(1).tolist())) for split in ("val", "test"))
    assert len(val | test) == 4000


def test_a_limit_takes_the_same_points():
    data = GaussianRing()
    assert torch.equal(everything(data, limit=300)[0], everything(data)[0][:300])
    assert len(everything(data, "test", limit=10**6)[0]) == 2000


def test_training_order_is_independent_of_the_labels():
    """Draws and order come from one seed; with one stream of random numbers the modes would come sorted."""
    data = GaussianRing(batch_size=5000)
    shares = [batch["label"].bincount() / 5000 for batch in data.train_dataloader()]
    assert torch.stack(shares).sub(1 / 8).abs().max() < 5 * (1 / 8 / 5000) ** 0.5


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_points_without_duplicates(world, monkeypatch):
    data = GaussianRing(num_train=600, num_test=101, batch_size=100 // world)
    joined = {}
    for split in ("train", "test"):
        seen = []
        for rank in range(world):
            monkeypatch.setattr("lit_generative.data.samplers.rank_and_world", lambda rank=rank: (rank, world))
            loader = data.train_dataloader() if split == "train" else data.test_dataloader()
            seen.append([batch["image"][:, 0, 0, 0].tolist() for batch in loader])
        assert len({len(batches) for batches in seen}) == 1
        joined[split] = sorted(x for batches in seen for batch in batches for x in batch)
        monkeypatch.undo()
    assert joined["test"] == sorted(everything(data, "test")[0][:, 0].flatten().tolist())
    assert len(joined["train"]) == len(set(joined["train"])) >= 594


@pytest.mark.parametrize("stop", [0, 1, 5, 6, 13])  # an epoch has 6 batches
def test_a_resumed_loader_goes_on_in_the_middle_of_an_epoch(stop):
    def batches(loader, count):
        found = []
        while len(found) < count:
            for batch in loader:
                found.append(batch["image"].flatten().tolist())
                if len(found) == count:
                    break
        return found

    def loader():
        return GaussianGrid(num_train=60, batch_size=10).train_dataloader()

    whole = batches(loader(), 20)
    assert whole[0] != whole[6]
    first, second = loader(), loader()
    begun = batches(first, stop)
    second.load_state_dict(first.state_dict())
    assert begun + batches(second, 20 - stop) == whole


def test_the_training_loader_is_one_that_lightning_leaves_in_place():
    assert isinstance(GaussianRing().train_dataloader().sampler, ShuffledBatches)


def test_fingerprints_tell_data_apart_and_nothing_else():
    sets = [{}, {"seed": 1}, {"num_modes": 7}, {"radius": 0.7}, {"scale": 0.009}, {"num_test": 1999}]
    prints = [GaussianRing(**options).fingerprint("test") for options in sets]
    data = GaussianRing()
    prints += [data.fingerprint("val"), data.fingerprint("train"), data.fingerprint("test", 100)]
    prints += [GaussianGrid().fingerprint("test")]
    assert len(set(prints)) == len(prints)
    assert GaussianRing(batch_size=3).fingerprint("test") == data.fingerprint("test") == data.fingerprint("test", 2000)
    protocols = [str(GaussianRing(**options).protocol("test")) for options in sets]
    assert len(set(protocols)) == len(protocols)


def test_a_checkpoint_can_describe_it():
    data = GaussianRing(num_modes=5, seed=3)
    assert isinstance(data, Described)
    assert rebuild(describe(data)).fingerprint("test") == data.fingerprint("test")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianRing(num_modes=0), "num_modes=0: it must be at least 1"),
        (lambda: GaussianRing(radius=-1), "radius=-1: it must be at least"),
        (lambda: GaussianRing(scale=float("nan")), "scale=nan: it must be at least"),
        (lambda: GaussianRing(scale=0.1), r"scale=0.1 about centres as far out as 0.8 leaves \[-1, 1\]"),
        (lambda: GaussianGrid(side=1), "side=1: it must be at least 2"),
        (lambda: GaussianGrid(extent=1), r"as far out as 1 leaves \[-1, 1\]"),
        (lambda: GaussianGrid(batch_size=0), "batch_size=0: it must be at least"),
        (lambda: GaussianGrid(num_train=0), "num_train=0: it must be at least"),
        (lambda: GaussianGrid(num_test=0), "num_test=0: it must be at least"),
        (lambda: GaussianGrid(seed=-1), "seed=-1: it must be at least"),
        (lambda: GaussianRing().loader("training"), "split='training' is none of train, val, test"),
    ],
)
def test_arguments_without_a_meaning_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_base_class_has_no_centres():
    with pytest.raises(TypeError, match="abstract"):
        GaussianPoints(scale=0.1)
