"""Wrong arguments and wrong data are refused when they are given or set up: one sentence that names them."""

import inspect
import json
import re
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from lit_generative.data import (
    DynamicBinarisation,
    GaussianGrid,
    GaussianRing,
    ImageDataModule,
    StaticBinarisation,
)
from lit_generative.description import describe, rebuild

NAN, INF = float("nan"), float("inf")
ARGUMENTS = [
    *(
        ("dataset", value)
        for value in (
            "",
            " ",
            None,
            3,
            "fashion_mnist",
            "no/such/folder/",
            "./x.parquet",
            "zzz",
            "x" * 300,
            "~nobody-there/x",
        )
    ),
    *(("image_size", value) for value in (0, -1, 28.5, "28", True, NAN, [28], [28, 0], [1, 2, 3], [28, 10**9], 10**9)),
    *(("batch_size", value) for value in (0, -8, 1.5, "many", None, False, INF)),
    *(("config_name", value) for value in ("", 3, "plain")),
    *(("revision", value) for value in ("", 3, "main")),
    *(("train_split", value) for value in ("", 3, "nope")),
    *(("val_split", value) for value in ("", ["val"], "nope", "train")),
    *(("test_split", value) for value in ("", 0, "nope", "train")),
    *(("val_fraction", value) for value in (0, -0.1, 0.5, 1, 2, NAN, INF, "a tenth", None, True)),
    *(("subset", value) for value in (0, -1, 1.5, "all", True, 10**9)),
    *(("image_column", value) for value in ("", None, 3, "picture")),
    *(("label_column", value) for value in ("", 3, "kind", "Label")),
    *(("channels", value) for value in (0, 2, 4, -1, "3", "rgb", None, True)),
    *(("background", value) for value in ("", "whitish", None, 255, "#12")),
    *(("random_flip", value) for value in ("yes", 1, None)),
    *(("in_memory", value) for value in ("yes", "", 1, None)),
    *(("memory_budget", value) for value in (-1, NAN, "4GB", None)),
    *(("num_workers", value) for value in (-1, 0.5, "two", True)),
    *(("streaming", value) for value in ("yes", 1, None)),
    *(("on_error", value) for value in ("ignore", "Skip", "", None, True)),
    *(("seed", value) for value in (-1, 0.5, None, "a")),
    *(("binarise", value) for value in ("static", True, StaticBinarisation)),
    *(("condition_columns", value) for value in ("colour", None, 3, [3], ["nope"], ["label"])),
]


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    """Twelve small pictures of two classes, in a folder."""
    folder = tmp_path_factory.mktemp("data") / "clothes"
    for i in range(12):
        file = folder / ("odd" if i % 2 else "even") / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(file)
    return str(folder)


def refused(make):
    """The sentence by which construction or setup refuses."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        make().setup("fit")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize(("argument", "value"), ARGUMENTS, ids=[f"{name}={value!r}" for name, value in ARGUMENTS])
def test_an_argument_without_a_meaning_is_named_with_its_value(clothes, argument, value):
    message = refused(lambda: ImageDataModule(**{"dataset": clothes, argument: value}))
    assert argument in message
    assert str(value) in message.replace(",", "") or str(value) in message


def test_the_table_has_over_a_hundred_cases_and_every_argument():
    arguments = set(inspect.signature(ImageDataModule).parameters)
    assert {name for name, _ in ARGUMENTS} == arguments
    assert len(ARGUMENTS) > 100


@pytest.mark.parametrize("options", [{"subset": 5}, {"in_memory": True}])
def test_streaming_refuses_what_needs_everything_at_once(clothes, options):
    assert next(iter(options)) in refused(lambda: ImageDataModule(clothes, streaming=True, **options))


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: GaussianRing(num_modes=0), "num_modes=0"),
        (lambda: GaussianRing(num_modes=2.5), "num_modes=2.5"),
        (lambda: GaussianRing(radius=-1), "radius=-1"),
        (lambda: GaussianRing(radius="far"), "radius='far'"),
        (lambda: GaussianRing(scale=NAN), "scale=nan"),
        (lambda: GaussianRing(scale=1.0), "scale=1.0"),
        (lambda: GaussianRing(batch_size=0), "batch_size=0"),
        (lambda: GaussianRing(seed=-1), "seed=-1"),
        (lambda: GaussianGrid(side=1), "side=1"),
        (lambda: GaussianGrid(extent=0), "extent=0"),
        (lambda: GaussianGrid(num_train=0), "num_train=0"),
        (lambda: GaussianGrid(num_test=None), "num_test=None"),
        (lambda: StaticBinarisation(seed=-1), "seed=-1"),
        (lambda: StaticBinarisation(seed="a"), "seed='a'"),
    ],
)
def test_points_and_binarisations_refuse_alike(make, argument):
    assert argument in refused(make)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda data: data.loader("trian"), "split='trian'"),
        (lambda data: data.num_images("all"), "split='all'"),
        (lambda data: data.protocol("valid"), "split='valid'"),
        (lambda data: data.fingerprint("x"), "split='x'"),
        (lambda data: data.loader("val", batch_size=0), "batch_size=0"),
        (lambda data: data.loader("val", limit=0), "limit=0"),
        (lambda data: data.loader("val", limit=-5), "limit=-5"),
    ],
)
def test_what_is_asked_of_the_data_is_checked(clothes, call, argument):
    for data in (ImageDataModule(clothes), GaussianRing(num_train=10, num_test=10)):
        if argument.startswith("split") and isinstance(data, GaussianRing) and "protocol" in call.__code__.co_names:
            continue
        with pytest.raises(ValueError, match=argument):
            call(data)


MANY = [f"{i}.png" for i in range(12)]


def put(*names, size=(8, 8)):
    """Return what writes pictures of these names into a folder."""

    def write(folder):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", size).save(folder / name)
        return folder

    return write


def content(name, text):
    def write(folder):
        (folder / name).write_bytes(text)
        return folder / name

    return write


def table(**columns):
    def write(folder):
        datasets.Dataset.from_dict(columns).to_parquet(folder / "t.parquet")
        return folder / "t.parquet"

    return write


def different_sizes(folder):
    put(*MANY)(folder)
    return put("d.png", size=(9, 8))(folder)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: folder, "is an empty folder"),
        (lambda folder: folder / "nothing", "no such file or folder"),
        (lambda folder: content("notes.txt", b"hello")(folder).parent, r"holds no images.*notes\.txt"),
        (content("notes.txt", b"hello"), r"has the ending \.txt"),
        (content("x.png", b"hello"), r"has the ending \.png"),
        (content("x.npy", b"hello"), r"has the ending \.npy"),
        (lambda folder: put("a.png")(folder), "'train': 1 image is too few.*give at least 10 images"),
        (put("a.png", "b.png", "c.png"), "'train': 3 images are too few.*raise val_fraction.*only copy"),
        (lambda folder: content("b.png", b"no")(put(*MANY)(folder)).parent, "cannot be read as an image"),
        (lambda folder: put("a.tif", "b.jpg", "c.h5.png")(content("d.h5", b"x")(folder).parent), r"d\.h5 is not an im"),
        (different_sizes, "different sizes.*give image_size"),
        (put("cats/1.png", "dogs/1.png", "test/1.png"), "'test'.*called like a split.*rename it"),
        (put("train/1.png", "test/2.png", "3.png"), "beside images"),
        (put("cats/train/1.png", "dogs/train/2.png"), "'train'.*lies in another folder"),
        (put("val/1.png", "test/2.png"), "train_split.*'train'.*val, test|train_split.*'train'.*test, val"),
        (put("test/1.png", "test/2.png"), "train_split.*'train'"),
        (put("train/1.png", "val/2.png", "valid/3.png"), "'val' and 'valid'.*val_split"),
        (lambda folder: content("metadata.csv", b"a,b\n1,2")(put("1.png", "2.png")(folder)).parent, "'file_name'"),
        (lambda folder: content("metadata.csv", b"")(put("1.png", "2.png")(folder)).parent, "cannot be read"),
        (content("x.zip", b"PK nothing"), "cannot be read as an archive"),
        (content("x.ZIP", b""), "cannot be read as an archive"),
        (content("x.tar", b"nothing" * 100), "cannot be read as an archive"),
        (content("x.tar.gz", b"\x1f\x8bnothing"), "cannot be read as an archive"),
        (content("x.parquet", b"PAR1"), "cannot be read"),
        (content("train-images-idx3-ubyte", b"\0\0\x08\x03"), "idx3-ubyte' has the ending|has the ending"),
        (lambda folder: content("train-images-idx3-ubyte", b"\0\0\x08\x03\0")(folder).parent, "within its header"),
        (lambda folder: content("train-images-idx3-ubyte", b"\0\0\x0d\x03")(folder).parent, "no IDX file of unsigned"),
        (lambda folder: content("state.json", json.dumps({}).encode())(folder).parent, "cannot be read"),
        (table(a=[1, 2, 3]), r"no column holds images.*image_column.*a \(int64\)"),
        (table(image=["a.png", "b.png"]), "image_column"),
        (table(**{f"pixel{i}": [1, 2] for i in range(784)}), r"image_column='auto'.*pixel0 \(int64\).*772 others"),
        (table(image=[[1.0, 2.0, 3.0]] * 3), "image_column='image'.*lists that are no image"),
        (table(image=[[[0.5, 300.0]] * 2] * 3), "image_column='image'.*what is white"),
        (table(image=[[[0, 128]] * 2] * 30, label=[i / 7 for i in range(30)]), "label_column='label'.*no class"),
        (
            table(image=[[[0, 128]] * 2] * 30, label=["a", None, "b"] * 10),
            "label_column='label'.*without a value.*row 1",
        ),
    ],
)
def test_data_that_cannot_be_right_are_refused_before_the_training(tmp_path, hf_cache, write, message):
    (tmp_path / "given").mkdir()
    path = write(tmp_path / "given")
    assert re.search(message, refused(lambda: ImageDataModule(path)))


def test_a_path_object_is_a_path_for_checkpoints_too(clothes):
    data = ImageDataModule(Path(clothes))
    assert data.num_images("train") == 10
    assert rebuild(describe(data)).dataset == clothes


@pytest.mark.parametrize("options", [{"image_column": "label"}, {"image_column": "label", "streaming": True}])
def test_a_column_without_images_is_refused(tmp_path, hf_cache, options):
    path = table(image=[[[0, 128]] * 2] * 30, label=[0, 1, 2] * 10)(tmp_path)
    assert "image_column='label' holds no images" in refused(lambda: ImageDataModule(path, **options))
    assert "label_column='image' is of the type" in refused(lambda: ImageDataModule(path, label_column="image"))


def test_right_values_of_all_kinds_pass(clothes):
    ImageDataModule(
        clothes, batch_size=np.int64(4), image_size=np.int32(8), memory_budget=0, val_fraction=np.float32(0.2)
    )
    ImageDataModule(clothes, channels=np.int64(3), in_memory=False, num_workers=0, binarise=DynamicBinarisation())
