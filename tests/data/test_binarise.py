"""Binarised images: their means are the gray levels; static ones never change, dynamic ones always do in training."""

import jsonargparse
import numpy as np
import pytest
import torch

from lit_generative.data import DynamicBinarisation, ImageDataModule, StaticBinarisation
from lit_generative.data.samplers import Picks
from lit_generative.description import describe, rebuild


def images(loader):
    """All images of a loader."""
    return torch.cat([batch["image"] for batch in loader])


def by_place(data, epochs=1):
    """The training images (epochs, N, ...) in the order of the set, whatever the order of the batches."""
    loader = data.train_dataloader()
    seen = []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        index = np.concatenate([picks.index for picks in loader.sampler])
        batches = images(loader)
        seen.append(torch.empty_like(batches))
        seen[-1][index] = batches
    return torch.stack(seen)


@pytest.mark.parametrize("binarise", [StaticBinarisation(), StaticBinarisation(3), DynamicBinarisation()])
def test_probability_of_white_is_the_gray_level(fashion, binarise):
    gray = images(fashion.loader("val"))
    drawn = images(ImageDataModule(binarise=binarise).loader("val"))
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    level, white = (gray.double() + 1) / 2, (drawn.double() + 1) / 2
    assert (white[gray == 1] == 1).all()
    assert (white[gray == -1] == 0).all()
    for low in torch.arange(0, 1, 0.1):
        here = (level > low) & (level < low + 0.1) & (gray.abs() < 1)
        p = level[here]
        error = (white[here].sum() - p.sum()) / (p * (1 - p)).sum().sqrt()
        assert abs(error.item()) < 5


def test_black_and_white_are_certain_and_every_level_is_itself():
    pixels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4000, 1)[None, None]
    for drawn in (StaticBinarisation()(pixels, None), DynamicBinarisation()(pixels, (0, 1, 0))):
        share = (drawn[0, 0] / 255).mean(1)
        assert share[0] == 0
        assert share[255] == 1
        assert np.abs(share - np.arange(256) / 255).max() < 0.04


def test_static_images_are_the_same_in_every_epoch_run_and_order():
    first, second = by_place(ImageDataModule(subset=200, batch_size=50, binarise=StaticBinarisation()), epochs=2)
    assert torch.equal(first, second)
    other_order = ImageDataModule(subset=200, batch_size=20, seed=5, binarise=StaticBinarisation())
    assert torch.equal(by_place(other_order)[0], first)
    assert torch.equal(images(other_order.loader("train")), first)
    other_seed = images(ImageDataModule(subset=200, binarise=StaticBinarisation(1)).loader("train"))
    assert not torch.equal(other_seed, first)


def test_dynamic_images_differ_between_epochs_and_average_to_the_gray_ones():
    data = ImageDataModule(subset=50, batch_size=25, binarise=DynamicBinarisation())
    drawn = by_place(data, epochs=200)
    assert not torch.equal(drawn[0], drawn[1])
    gray = images(ImageDataModule(subset=50).loader("train"))
    assert (drawn.mean(0) - gray).abs().max() < 0.45
    assert (drawn.mean(0) - gray).mean().abs() < 2e-3


def test_dynamic_images_are_a_function_of_seed_and_place_in_the_run():
    def train(seed):
        return images(
            ImageDataModule(subset=200, batch_size=50, seed=seed, binarise=DynamicBinarisation()).train_dataloader()
        )

    assert torch.equal(train(0), train(0))
    resumed = ImageDataModule(subset=200, batch_size=50, binarise=DynamicBinarisation()).train_dataloader()
    resumed.load_state_dict({"epoch": 0, "batches": 2})
    assert torch.equal(images(resumed)[:100], train(0)[100:])


def test_dynamic_images_for_evaluation_are_always_the_same():
    data = ImageDataModule(binarise=DynamicBinarisation())
    for split in ("train", "val"):
        assert torch.equal(images(data.loader(split, limit=100)), images(data.loader(split, limit=100)))
    assert torch.equal(images(data.loader("val")), images(ImageDataModule(binarise=StaticBinarisation()).loader("val")))


@pytest.mark.parametrize("binarise", [StaticBinarisation(), DynamicBinarisation()])
@pytest.mark.parametrize("workers", [0, 1])
def test_binarised_images_are_the_same_in_memory_and_from_workers(folder, binarise, workers):
    options = {"random_flip": True, "batch_size": 4, "binarise": binarise}
    memory = images(ImageDataModule(str(folder), in_memory=True, **options).train_dataloader())
    lazy = ImageDataModule(str(folder), in_memory=False, num_workers=workers, **options).train_dataloader()
    assert torch.equal(memory, images(lazy))


@pytest.mark.parametrize(("binarise", "repeats"), [(StaticBinarisation(), True), (DynamicBinarisation(), False)])
def test_streams_are_binarised(tmp_path, hf_cache, pictures, binarise, repeats):
    import datasets

    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": pictures[0]}, features=features).to_parquet(tmp_path / "x.parquet")
    path = str(tmp_path / "x.parquet")
    data = ImageDataModule(path, streaming=True, batch_size=4, num_workers=0, binarise=binarise)
    loader = data.train_dataloader()
    epochs = [sorted(image.numpy().tobytes() for batch in loader for image in batch["image"]) for _ in range(2)]
    whole = {image.numpy().tobytes() for image in images(data.loader("train"))}
    assert (set(epochs[0]) <= whole) == (set(epochs[1]) <= whole) == repeats
    assert all(set(np.unique(np.frombuffer(image, np.float32))) <= {-1, 1} for image in epochs[0])


def test_processes_draw_differently_but_the_static_ones_alike():
    pixels = np.full((2, 1, 8, 8), 100, np.uint8)
    dynamic, static = DynamicBinarisation(), StaticBinarisation()
    assert not np.array_equal(dynamic(pixels, (0, 5, 0)), dynamic(pixels, (0, 5, 1)))
    assert np.array_equal(static(pixels, (0, 5, 0)), static(pixels, (0, 6, 1)))
    assert Picks(np.arange(2)).key is None


def test_protocol_and_fingerprint_say_so(fashion):
    static, dynamic = ImageDataModule(binarise=StaticBinarisation(4)), ImageDataModule(binarise=DynamicBinarisation())
    assert static.protocol("test")["binarised"] == "static, seed 4"
    assert dynamic.protocol("test")["binarised"].startswith("dynamic")
    assert "binarised" not in fashion.protocol("test")
    prints = {
        data.fingerprint("test") for data in (fashion, static, dynamic, ImageDataModule(binarise=StaticBinarisation(5)))
    }
    assert len(prints) == 4


def test_binarisation_is_chosen_in_yaml_and_described():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ImageDataModule, "data")
    for text, name in (
        ("DynamicBinarisation", "dynamic"),
        ("{class_path: StaticBinarisation, init_args: {seed: 2}}", "static, seed 2"),
    ):
        parsed = parser.parse_string(f"data:\n  subset: 20\n  binarise: {text}")
        data = parser.instantiate(parsed).data
        assert data.protocol("train")["binarised"].startswith(name)
        assert rebuild(describe(data)).fingerprint("train") == data.fingerprint("train")


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed=-1: it must be at least 0"):
        StaticBinarisation(-1)
