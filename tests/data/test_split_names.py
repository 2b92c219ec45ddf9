"""Folders of splits are recognised however they are spelled, and never taken for classes."""

import pytest
from PIL import Image

from lit_generative.data import ImageDataModule
from lit_generative.data.split_names import find_split, splits_called


def write(root, **folders):
    """Write so many pictures into each folder; __ stands for /."""
    for folder, n in folders.items():
        path = root / folder.replace("__", "/")
        path.mkdir(parents=True, exist_ok=True)
        for i in range(n):
            Image.new("L", (8, 8), i).save(path / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (("train", "TRAIN", "Training", "train2017", "training_set", "train_images", "img_train", "trainset"), "train"),
        (("train-64x64", "Train Data", "train.1"), "train"),
        (("val", "valid", "Validation", "val2017", "dev", "validation_set", "valid_64x64"), "validation"),
        (("test", "Testing", "test2017", "test1", "test_set", "eval", "testset"), "test"),
        (("unlabeled", "unlabelled2017", "Unsupervised"), "unlabeled"),
        (
            ("cats", "trains", "contest", "2017", "images", "train_test", "validator", "devil", "t-shirt", "cat_train"),
            None,
        ),
    ],
)
def test_names_of_splits(names, split):
    assert [find_split(name) for name in names] == [split] * len(names)


def test_a_word_that_all_names_share_does_not_count():
    assert splits_called(["celeba_train", "celeba_test"]) == {"celeba_train": "train", "celeba_test": "test"}
    assert splits_called(["cat_train", "dog_train"]) == {}


@pytest.mark.parametrize(
    "names",
    [
        ("train2017", "val2017", "test2017"),
        ("training", "validation", "testing"),
        ("TRAIN", "VALID", "TEST"),
        ("train_images", "dev", "eval"),
        ("archive/dataset/train", "archive/dataset/val", "archive/dataset/test"),
        ("training_set/training_set", "val_set/val_set", "test_set/test_set"),
    ],
)
def test_splits_are_those_of_the_source(tmp_path, names):
    for n, name in zip((12, 5, 4), names, strict=True):
        write(tmp_path, **{f"{name}__cats": n, f"{name}__dogs": n})
    write(tmp_path, **{"__MACOSX": 2, f"{names[0].partition('/')[0]}__.thumbnails": 3})
    data = ImageDataModule(tmp_path)
    assert [data.num_images(split) for split in ("train", "val", "test")] == [24, 10, 8]
    assert data.class_names == ["cats", "dogs"]


def test_unlabeled_images_are_neither_trained_on_nor_a_class(tmp_path):
    write(tmp_path, train__cats=10, train__dogs=10, test__cats=3, test__dogs=3, unlabeled=7)
    data = ImageDataModule(tmp_path)
    assert [data.num_images(split) for split in ("train", "val", "test")] == [18, 2, 6]
    assert data.class_names == ["cats", "dogs"]
    assert ImageDataModule(tmp_path, train_split="unlabeled", label_column=None).num_images("train") == 6


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        ({"cats": 3, "dogs": 3, "test": 3}, "'test'"),
        ({"bus": 3, "car": 3, "Train": 3}, "'Train'"),
        ({"train": 3, "test": 3, "masks": 3}, "'masks'"),
        ({"pets__cats": 3, "pets__dogs": 3, "pets__val2017": 3}, "'val2017'"),
        ({"cats__train": 3, "cats__test": 3, "dogs__train": 3}, "'test'|'train'"),
        ({"bottle__train__good": 3, "bottle__test__broken": 3, "cup__train__good": 2}, "'test'|'train'"),
    ],
)
def test_a_split_among_classes_is_refused(tmp_path, folders, named):
    with pytest.raises(ValueError, match=rf"({named}).*rename it"):
        ImageDataModule(write(tmp_path, **folders)).setup("fit")


def test_named_splits_settle_it(tmp_path):
    data = ImageDataModule(write(tmp_path, train=12, test=5, masks=4), train_split="train", test_split="test")
    assert [data.num_images(split) for split in ("train", "val", "test")] == [11, 1, 5]
    data = ImageDataModule(write(tmp_path / "b", mine__a=9, mine__b=9, yours__a=2, yours__b=2), train_split="mine")
    assert data.num_images("train") + data.num_images("val") + data.num_images("test") == 18


def test_labels_are_never_dropped_without_a_word(tmp_path):
    write(tmp_path, train__cats=10, train__dogs=10, test=5)
    with pytest.raises(ValueError, match=r"test/0\.png.*label_column: null"):
        ImageDataModule(tmp_path).setup("fit")
    assert ImageDataModule(tmp_path, label_column=None).num_images("test") == 5


def test_testing_on_what_was_chosen_by_is_said_once_and_stands_with_the_numbers(tmp_path):
    data = ImageDataModule(write(tmp_path, train=12, val=5))
    with pytest.warns(UserWarning, match=r"no test images.*validation images \(val\).*test_split"):
        list(data.loader("test"))
    assert "chosen" in data.protocol("test")["test_images"]
    assert "test_images" not in data.protocol("val")
    own = ImageDataModule(write(tmp_path, test=4))
    assert "test_images" not in own.protocol("test")
    shared = ImageDataModule(tmp_path, val_split="test")
    assert "chosen" in shared.protocol("test")["test_images"]


def test_a_training_split_that_is_called_test_is_trained_on_only_if_asked(tmp_path):
    write(tmp_path, test__cats=10, test__dogs=10)
    with pytest.raises(ValueError, match="train_split"):
        ImageDataModule(tmp_path).setup("fit")
    assert ImageDataModule(tmp_path, train_split="test").class_names == ["cats", "dogs"]
