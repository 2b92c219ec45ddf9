"""Labels in a table beside the images, as ``imagefolder`` of ``datasets`` has them, and in plain columns."""

import json
import shutil

import datasets
import numpy as np
import pytest

from lit_generative.data import ImageDataModule

WORDS = ["dog", "cat", "emu"] * 10


@pytest.fixture
def flat(tmp_path, pictures):
    """Thirty pictures in one folder."""
    root = tmp_path / "pets"
    root.mkdir()
    for i, image in enumerate(pictures[0]):
        image.save(root / f"{i:02}.png")
    return root


def write(folder, labels, kind="csv", column="label", prefix=""):
    rows = [{"file_name": f"{prefix}{i:02}.png", column: label} for i, label in enumerate(labels)]
    lines = [f"file_name,{column}", *(f"{row['file_name']},{row[column]}" for row in rows)]
    if kind == "jsonl":
        lines = list(map(json.dumps, rows))
    (folder / f"metadata.{kind}").write_text("\n".join(lines))
    return folder


def labels(data):
    """The class of each picture, by its pixels."""
    return {
        image.numpy().tobytes(): data.class_names[label]
        for split in ("train", "val", "test")
        for batch in data.loader(split)
        for image, label in zip(batch["image"], batch["label"], strict=True)
    }


def expected(pictures, values):
    data = {image.tobytes(): value for image, value in zip(pictures[0], values, strict=True)}
    return {
        (np.frombuffer(pixels, np.uint8).astype(np.float32) / 127.5 - 1).tobytes(): value
        for pixels, value in data.items()
    }


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("values", "names"),
    [
        (WORDS, WORDS),
        ([i % 2 == 0 for i in range(30)], ["True", "False"] * 15),
        ([float(i % 2) for i in range(30)], ["0", "1"] * 15),
        ([7 + i % 2 for i in range(30)], ["7", "8"] * 15),
    ],
)
def test_the_table_names_the_classes(flat, pictures, kind, values, names):
    data = ImageDataModule(write(flat, values, kind))
    assert data.class_names == sorted(set(names))
    assert labels(data) == expected(pictures, names)


def test_another_column_by_name(flat, pictures):
    write(flat, WORDS, column="breed")
    assert labels(ImageDataModule(flat, label_column="breed")) == expected(pictures, WORDS)
    assert ImageDataModule(flat).num_classes is None


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_in_archives_and_splits(tmp_path, hf_cache, flat, kind):
    for split in ("train", "test"):
        shutil.copytree(write(flat, WORDS), tmp_path / "all" / split)
    data = ImageDataModule(shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path, "all"))
    assert data.class_names == ["cat", "dog", "emu"]
    assert [data.num_images(split) for split in ("train", "val", "test")] == [27, 3, 30]


def test_one_table_on_top_of_the_splits(tmp_path, flat, pictures):
    flat.rename(tmp_path / "train")
    (tmp_path / "set").mkdir()
    (tmp_path / "train").rename(tmp_path / "set" / "train")
    data = ImageDataModule(write(tmp_path / "set", WORDS, prefix="train/"))
    assert labels(data) == expected(pictures, WORDS)


def test_the_table_goes_before_the_folders(folder, pictures):
    lines = [f"{'odd' if i % 2 else 'even'}/{i:02}.png,{word}" for i, word in enumerate(WORDS)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    assert ImageDataModule(folder).class_names == ["cat", "dog", "emu"]
    (folder / "metadata.csv").write_text("\n".join(["file_name,caption", *lines]))
    assert ImageDataModule(folder).class_names == ["even", "odd"]


def test_rows_and_images_that_do_not_meet(flat):
    write(flat, [*WORDS, "gnu"])  # the last row is of no image
    with pytest.raises(ValueError, match=r"metadata\.csv names 30\.png.*on_error: skip"):
        ImageDataModule(flat).setup("fit")
    data = ImageDataModule(flat, on_error="skip")
    assert data.class_names == ["cat", "dog", "emu"]
    assert data.num_skipped("train") == 1
    write(flat, WORDS[:-1])
    with pytest.raises(ValueError, match=r"label_column='label' has rows without a value, first .*29\.png.*null"):
        ImageDataModule(flat).setup("fit")
    assert ImageDataModule(flat, label_column=None).num_images("train") == 24


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\n00.png,a", "has no column 'file_name'.*name, label"),
        ("file_name,label\n00.png,a\n00.png,b", r"second row for 00\.png"),
        ("file_name,label\n../../secret.png,a", r"names \.\./\.\./secret\.png, which is no image there"),
        ("file_name,label\n00.png,a,b", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_tables_that_cannot_be_right(flat, text, message):
    (flat / "metadata.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        ImageDataModule(flat).setup("fit")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [WORDS, [True, False] * 15, [1.0, 2.0] * 15])
@pytest.mark.parametrize("column", ["label", "labels", "class", "category"])
def test_plain_columns_of_a_table_are_found(tmp_path, hf_cache, pictures, values, column):
    features = datasets.Features({"image": datasets.Image()})
    table = datasets.Dataset.from_dict({"image": pictures[0]}, features=features).add_column(column, values)
    table.to_parquet(tmp_path / "x.parquet")
    assert ImageDataModule(tmp_path / "x.parquet").num_classes == len(set(values))


def test_what_is_no_class_is_refused(tmp_path, hf_cache, pictures):
    features = datasets.Features({"image": datasets.Image()})
    table = datasets.Dataset.from_dict({"image": pictures[0]}, features=features)
    table.add_column("label", [i / 7 for i in range(30)]).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"label_column='label' has the value 0\.14.*label_column: null"):
        ImageDataModule(tmp_path / "x.parquet").setup("fit")
    assert ImageDataModule(tmp_path / "x.parquet", label_column=None).num_classes is None
