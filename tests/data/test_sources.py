"""Whatever holds images can be named as the data set, and what cannot be read is said to be so, once and clearly."""

import gzip
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from lit_generative.data import ImageDataModule

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def collect(data, split):
    """All images of a split, in order."""
    return torch.cat([batch["image"] for batch in data.loader(split)])


def collect_all(data):
    return {image.numpy().tobytes() for split in ("train", "val", "test") for image in collect(data, split)}


def fingers(pictures):
    """The pixels of PIL images as the data module gives them."""
    return {(np.asarray(p, np.float32)[None] / 127.5 - 1).astype(np.float32).tobytes() for p in pictures}


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_embedded_set_is_balanced_and_as_large_as_stated(fashion):
    assert fashion.name == "fashion-mnist"
    assert fashion.image_shape == (1, 28, 28)
    assert fashion.class_names[0] == "t-shirt"
    counts = {s: torch.cat([b["label"] for b in fashion.loader(s)]).bincount() for s in ("train", "val", "test")}
    assert (counts["train"] + counts["val"]).tolist() == [1000] * 10
    assert counts["test"].tolist() == [200] * 10


def test_embedded_files_are_small_and_carry_their_licence():
    folder = Path(__file__).parents[2] / "lit_generative" / "data" / "fashion_mnist"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 6.5e6
    assert "Zalando" in (folder / "LICENSE").read_text()


@pytest.mark.skipif(not DEBIAN.exists(), reason="needs Debian's dataset-fashion-mnist")
def test_embedded_images_are_those_of_the_full_set(fashion):
    full = ImageDataModule(str(DEBIAN))
    assert full.num_images("test") == 10_000
    assert full.num_images("train") == 54_000
    everything = {image.numpy().tobytes() for image in collect(full, "test")}
    assert {image.numpy().tobytes() for image in collect(fashion, "test")} <= everything


def test_folder_with_class_subfolders(folder, pictures):
    data = ImageDataModule(str(folder))
    assert (data.name, data.image_shape, data.class_names) == ("clothes", (1, 28, 28), ["even", "odd"])
    assert collect_all(data) == fingers(pictures[0])


def test_folder_without_subfolders_has_no_labels(folder):
    data = ImageDataModule(str(folder / "odd"))
    assert data.num_classes is None
    assert set(next(iter(data.loader("train")))) == {"image"}


def test_folder_with_splits(folder, tmp_path):
    for split in ("train", "val", "test"):
        shutil.copytree(folder, tmp_path / "split" / split)
    shutil.rmtree(tmp_path / "split" / "test" / "odd")
    data = ImageDataModule(str(tmp_path / "split"))
    assert [data.num_images(s) for s in ("train", "val", "test")] == [30, 30, 15]
    assert data.class_names == ["even", "odd"]
    assert {label for batch in data.loader("test") for label in batch["label"].tolist()} == {0}


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_folder(tmp_path, pictures, ending):
    images, labels = np.stack([np.asarray(p) for p in pictures[0]]), np.array(pictures[1], np.uint8)
    for split in ("train", "t10k"):
        write_idx(tmp_path / f"{split}-images-idx3-ubyte{ending}", images)
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte{ending}", labels)
    data = ImageDataModule(str(tmp_path))
    assert collect(data, "test").shape == (30, 1, 28, 28)
    assert {image.numpy().tobytes() for image in collect(data, "test")} == fingers(pictures[0])
    names = [data.class_names[label] for batch in data.loader("test") for label in batch["label"]]
    assert names == list(map(str, labels))


def make_parquet(path, pictures):
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=[*"abcdefghij"])})
    datasets.Dataset.from_dict({"picture": pictures[0], "kind": pictures[1]}, features=features).to_parquet(path)


def test_parquet_file(tmp_path, hf_cache, pictures):
    make_parquet(tmp_path / "clothes.parquet", pictures)
    data = ImageDataModule(str(tmp_path / "clothes.parquet"))
    assert (data.name, data.num_classes) == ("clothes", 10)
    assert collect_all(data) == fingers(pictures[0])


def test_parquet_of_other_writers(tmp_path, hf_cache, pictures):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [png(p) for p in pictures[0]], "id": range(30)}), tmp_path / "x.parquet")
    data = ImageDataModule(str(tmp_path / "x.parquet"))
    assert data.num_classes is None  # an id is no label
    assert collect_all(data) == fingers(pictures[0])


def test_folder_of_parquet_files_with_splits(tmp_path, hf_cache, pictures):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        make_parquet(tmp_path / f"{name}.parquet", pictures)
    data = ImageDataModule(str(tmp_path))
    assert data.num_images("test") == 30
    assert data.num_images("train") + data.num_images("val") == 60


def test_saved_by_datasets(tmp_path, folder, pictures):
    made = datasets.Dataset.from_dict({"image": pictures[0]}, features=datasets.Features({"image": datasets.Image()}))
    made.save_to_disk(tmp_path / "saved")
    assert collect_all(ImageDataModule(str(tmp_path / "saved"))) == fingers(pictures[0])


def test_zip_file(tmp_path, hf_cache, folder, pictures):
    with zipfile.ZipFile(tmp_path / "clothes.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder))
    data = ImageDataModule(str(tmp_path / "clothes.zip"))
    assert data.class_names == ["even", "odd"]
    assert collect_all(data) == fingers(pictures[0])


def make_tar(path, pictures):
    with tarfile.open(path, "w") as archive:
        for i, (image, label) in enumerate(zip(*pictures, strict=True)):
            for ending, content in {"png": png(image), "cls": str(label).encode()}.items():
                info = tarfile.TarInfo(f"{i:04}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def test_webdataset_file(tmp_path, hf_cache, pictures):
    make_tar(tmp_path / "clothes.tar", pictures)
    data = ImageDataModule(str(tmp_path / "clothes.tar"))
    assert data.class_names == [str(label) for label in sorted(set(pictures[1]))]
    assert collect_all(data) == fingers(pictures[0])


def test_labels_may_be_words(tmp_path, hf_cache, pictures):
    features = datasets.Features({"image": datasets.Image(), "what": datasets.Value("string")})
    words = ["cat", "ant", "bee"] * 10
    datasets.Dataset.from_dict({"image": pictures[0], "what": words}, features=features).to_parquet(
        tmp_path / "x.parquet"
    )
    data = ImageDataModule(str(tmp_path / "x.parquet"), label_column="what")
    assert data.class_names == ["ant", "bee", "cat"]


def test_any_colour_image_makes_the_set_rgb(folder):
    Image.new("P", (28, 28)).convert("RGB").save(folder / "odd" / "red.jpg")
    assert ImageDataModule(str(folder)).image_shape == (3, 28, 28)
    assert ImageDataModule(str(folder), channels=1).image_shape == (1, 28, 28)


def test_hub_id_is_passed_on_and_names_the_set(monkeypatch, pictures):
    asked = []
    rows = {"image": pictures[0], "label": pictures[1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=[*"abcdefghij"])})
    table = datasets.Dataset.from_dict(rows, features=features)

    class Builder:
        hash = "0123"
        config = datasets.BuilderConfig("small")

    def load_dataset(path, **options):
        asked.append((path, options))
        return datasets.DatasetDict(train=table, validation=table)

    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *args, **options: Builder)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = ImageDataModule("someone/something", config_name="small", revision="v2")
    assert (data.name, data.num_images("test")) == ("someone/something", 30)
    assert asked == [("someone/something", {"name": "small", "revision": "v2", "streaming": False})]


def test_many_pictures_of_all_kinds_train_as_one(tmp_path):
    rng = np.random.default_rng(0)
    for i, (mode, ending) in enumerate(
        [("RGB", "jpg"), ("L", "jpg"), ("RGB", "png"), ("P", "png"), ("RGBA", "png"), ("LA", "png"), ("CMYK", "jpg")]
        * 4
    ):
        size = rng.integers(30, 200, 2)
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).convert("L" if mode == "LA" else "RGB")
        path = tmp_path / ("cats" if i % 2 else "dogs") / f"{i}.{ending}"
        path.parent.mkdir(exist_ok=True)
        image.convert(mode).save(path)
    data = ImageDataModule(str(tmp_path), image_size=64, batch_size=8)
    assert data.image_shape == (3, 64, 64)
    assert data.class_names == ["cats", "dogs"]
    assert len(collect_all(data)) == 28
