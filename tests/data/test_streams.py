"""Streams give each image once, whatever the number of processes, and resume like everything else."""

import datasets
import pytest
import torch
from test_resume import watch

from lit_generative.data import ImageDataModule, streams


@pytest.fixture
def stream(tmp_path, hf_cache, fashion):
    """Makes data modules that stream 90 images from three Parquet files."""
    batch = next(iter(fashion.loader("test", batch_size=90)))
    pixels = ((batch["image"] + 1) * 127.5).round().to(torch.uint8)[:, 0].numpy()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=[*"abcdefghij"])})
    for i in range(3):
        rows = {"image": list(pixels[i::3]), "label": batch["label"][i::3].tolist()}
        part = datasets.Dataset.from_dict(rows, features=features)
        part.to_parquet(tmp_path / "many" / f"train-{i:05}-of-00003.parquet")

    def make(**options):
        defaults = {"batch_size": 8, "streaming": True, "num_workers": 0}
        return ImageDataModule(str(tmp_path / "many"), **(defaults | options))

    return make


def names(batches):
    return [image.sum().item() for batch in batches for image in batch["image"]]


def test_stream_is_the_set_in_pieces(stream):
    data, whole = stream(), stream(streaming=False)
    assert (data.image_shape, data.class_names) == (whole.image_shape, whole.class_names)
    streamed = sorted(names(data.loader("train")) + names(data.loader("val")) + names(data.loader("test")))
    stored = sorted(names(whole.loader("train")) + names(whole.loader("val")) + names(whole.loader("test")))
    assert streamed == stored
    assert min(len(names(data.loader(split))) for split in ("val", "test")) > 0
    assert data.num_images("train") is None


def test_shuffling_leaves_the_splits_alone_and_differs_between_epochs(stream):
    loader = stream().train_dataloader()
    first, second = names(loader), names(loader)
    assert first != second
    in_order = names(stream().loader("train"))
    assert set(first) | set(second) <= set(in_order)
    assert len(first) == len(in_order) // 8 * 8


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_a_stream_exactly(stream, monkeypatch, world):
    whole = names(stream().loader("train"))
    ranks = []
    for rank in range(world):
        monkeypatch.setattr(streams, "rank_and_world", lambda rank=rank: (rank, world))
        ranks.append(list(stream(batch_size=4).loader("train")))
    assert len({len(batches) for batches in ranks}) == 1
    assert sorted(name for batches in ranks for name in names(batches)) == sorted(whole)


def test_limit_stops_a_stream(stream):
    assert len(names(stream().loader("train", limit=13))) == 13


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stop", [4, 9])  # an epoch has 8 or 9 batches
def test_stream_resumes_in_the_middle_of_an_epoch(stream, make_trainer, tmp_path, stop, workers):
    options = {"random_flip": True, "num_workers": workers}
    whole, _ = watch(make_trainer, stream(**options), max_steps=14, limit_val_batches=0)
    first, trainer = watch(make_trainer, stream(**options), max_steps=stop, limit_val_batches=0)
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    path = tmp_path / "stopped.ckpt"
    second, _ = watch(make_trainer, stream(**options), path, max_steps=14, limit_val_batches=0)
    assert first + second == whole


def test_integer_labels_of_a_stream_cannot_be_counted(tmp_path, hf_cache, pictures):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": pictures[0], "label": pictures[1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "x.parquet")
    path = str(tmp_path / "x.parquet")
    assert ImageDataModule(path, streaming=True).num_classes is None
    with pytest.raises(ValueError, match="cannot be counted"):
        _ = ImageDataModule(path, streaming=True, label_column="label").num_classes
