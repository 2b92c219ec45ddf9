"""Values that do not say what is white are read where it is certain, and refused where not: never black by mistake."""

import datasets
import numpy as np
import pytest
from PIL import Image
from test_sources import collect_all, fingers

from lit_generative.data import ImageDataModule
from lit_generative.data.gray_levels import Levels, to_bytes


@pytest.fixture
def arrays(pictures):
    return np.stack([np.asarray(picture) for picture in pictures[0]])


def write(path, values, feature=None, **columns):
    features = None
    if feature is not None:
        features = datasets.Features({"image": feature})
    datasets.Dataset.from_dict({"image": list(values), **columns}, features=features).to_parquet(path)
    return path


def lists(depth, kind):
    feature = datasets.Value(kind)
    for _ in range(depth):
        feature = datasets.List(feature)
    return feature


SHAPES = {
    "28x28": (lambda x: x, lists(2, "uint8")),
    "784": (lambda x: x.reshape(30, -1), lists(1, "uint8")),
    "28x28x1": (lambda x: x[..., None], lists(3, "uint8")),
    "1x28x28": (lambda x: x[:, None], lists(3, "uint8")),
    "array": (lambda x: x, datasets.Array2D((28, 28), "uint8")),
    "array of channels": (lambda x: x[:, None], datasets.Array3D((1, 28, 28), "uint8")),
    "large": (lambda x: x, datasets.LargeList(datasets.LargeList(datasets.Value("uint8")))),
}
CERTAIN = {
    "int64": (lambda x: x.astype(np.int64), "int64"),
    "16 bits": (lambda x: x.astype(np.uint16) * 257, "uint16"),
    "0 to 1": (lambda x: x / 255, "float32"),
    "whole floats": (lambda x: x.astype(float), "float64"),
}
AMBIGUOUS = {
    "-1 to 1": (lambda x: x / 127.5 - 1, "float32"),
    "0 to 255, not whole": (lambda x: x * 0.99, "float32"),
    "12 bits": (lambda x: x.astype(np.uint16) * 16, "uint16"),
    "signed": (lambda x: x.astype(np.int16) - 128, "int16"),
    "nan": (lambda x: x * np.nan, "float32"),
    "large": (lambda x: x.astype(np.int64) * 257, "int64"),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{}, {"in_memory": False, "num_workers": 0}, {"streaming": True, "num_workers": 0}])
def test_lists_of_bytes_are_the_pictures_that_they_show(tmp_path, hf_cache, pictures, arrays, shape, options):
    arrange, feature = SHAPES[shape]
    data = ImageDataModule(write(tmp_path / "x.parquet", arrange(arrays).tolist(), feature), **options)
    assert data.image_shape == (1, 28, 28)
    assert collect_all(data) == fingers(pictures[0])


@pytest.mark.parametrize("axis", [1, 3])
def test_lists_in_colour(tmp_path, hf_cache, arrays, axis):
    colours = np.stack([arrays, arrays[:, ::-1], arrays[:, :, ::-1]], axis)
    data = ImageDataModule(write(tmp_path / "x.parquet", colours.tolist(), lists(3, "uint8")))
    expected = colours if axis == 1 else colours.transpose(0, 3, 1, 2)
    assert data.image_shape == (3, 28, 28)
    assert collect_all(data) == {(x / 127.5 - 1).astype(np.float32).tobytes() for x in expected.astype(np.float32)}


@pytest.mark.parametrize("kind", CERTAIN)
def test_other_numbers_in_lists_are_read_where_white_is_certain(tmp_path, hf_cache, pictures, arrays, kind):
    change, dtype = CERTAIN[kind]
    data = ImageDataModule(write(tmp_path / "x.parquet", change(arrays).tolist(), lists(2, dtype)))
    assert collect_all(data) == fingers(pictures[0])


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_other_numbers_in_lists_are_refused_where_it_is_not(tmp_path, hf_cache, arrays, kind):
    change, dtype = AMBIGUOUS[kind]
    path = write(tmp_path / "x.parquet", change(arrays).tolist(), lists(2, dtype))
    with pytest.raises(ValueError, match=r"image_column='image' has \w+ values from .*convert them to 8 bits"):
        ImageDataModule(path).setup("fit")


def test_zeros_and_ones_are_black_and_white(tmp_path, hf_cache, arrays):
    for kind in ("uint8", "int64", "bool"):
        path = write(tmp_path / f"{kind}.parquet", (arrays > 99).astype(kind).tolist(), lists(2, kind))
        data = ImageDataModule(path)
        assert {value for image in collect_all(data) for value in np.frombuffer(image, np.float32).tolist()} == {-1, 1}


def test_a_list_that_is_no_image_is_one_image_that_cannot_be_read(tmp_path, hf_cache, arrays):
    rows = [*arrays[:9].tolist(), [[1, 2], [3]], *arrays[9:18].tolist(), None, *arrays[18:].tolist()]
    path = write(tmp_path / "x.parquet", rows, lists(2, "uint8"))
    with pytest.raises(ValueError, match="row 9 of train cannot be read"):
        ImageDataModule(path).setup("fit")
    assert len(collect_all(ImageDataModule(path, on_error="skip"))) == 30


def test_labels_and_captions_beside_images_are_no_images(tmp_path, hf_cache, pictures, arrays):
    path = write(tmp_path / "x.parquet", arrays.tolist(), box=[[1, 2, 3, 4]] * 30, label=pictures[1], name=["a"] * 30)
    data = ImageDataModule(path)
    assert data.num_classes == len(set(pictures[1]))
    assert data.image_shape == (1, 28, 28)


def save(folder, values, ending="tif"):
    folder.mkdir()
    for i, image in enumerate(values):
        Image.fromarray(image).save(folder / f"{i:02}.{ending}")
    return folder


FILES = {
    "int32 of 0 to 255": (lambda x: x.astype(np.int32), "tif"),
    "float32 of 0 to 1": (lambda x: (x / 255).astype(np.float32), "tif"),
    "float32 of 0 to 255": (lambda x: x.astype(np.float32), "tif"),
    "16 bits": (lambda x: x.astype(np.uint16) * 257, "tif"),
    "16 bits in PNG": (lambda x: x.astype(np.uint16) * 257, "png"),
    "16 bits in PGM": (lambda x: x.astype(np.uint16) * 257, "pgm"),
}
UNCERTAIN_FILES = {
    "int32 of 0 to 65,535": (lambda x: x.astype(np.int32) * 257, "tif"),
    "float32 of -1 to 1": (lambda x: (x / 127.5 - 1).astype(np.float32), "tif"),
    "float32, not whole": (lambda x: (x * 0.99).astype(np.float32), "tif"),
    "nan": (lambda x: (x * np.nan).astype(np.float32), "tif"),
    "8 bits in 16": (lambda x: x.astype(np.uint16), "png"),
    "12 bits in 16": (lambda x: x.astype(np.uint16) * 16, "png"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("options", [{}, {"image_size": 28, "channels": 1}])
def test_files_of_more_than_8_bits_are_read_where_white_is_certain(tmp_path, pictures, arrays, kind, options):
    change, ending = FILES[kind]
    data = ImageDataModule(save(tmp_path / "x", change(arrays), ending), **options)
    assert collect_all(data) == fingers(pictures[0])


@pytest.mark.parametrize("kind", UNCERTAIN_FILES)
@pytest.mark.parametrize("options", [{}, {"image_size": 28, "channels": 1}])
def test_files_of_more_than_8_bits_are_refused_where_it_is_not(tmp_path, arrays, kind, options):
    change, ending = UNCERTAIN_FILES[kind]
    with pytest.raises(ValueError, match=r"values.*convert them to 8 bits"):
        ImageDataModule(save(tmp_path / "x", change(arrays), ending), **options).setup("fit")


def test_a_dark_picture_among_bright_ones_stays_dark(tmp_path, arrays):
    values = arrays.astype(np.int32)
    values[3] = 1
    data = ImageDataModule(save(tmp_path / "x", values))
    assert np.full((1, 28, 28), 1 / 127.5 - 1, np.float32).tobytes() in collect_all(data)


def test_a_picture_out_of_the_others_range_is_unreadable(tmp_path, arrays, monkeypatch):
    monkeypatch.setattr("lit_generative.data.surveys._DEEP_LOOKED_AT", 5)
    values = arrays.astype(np.int32)
    values[20] = 300
    folder = save(tmp_path / "x", values)
    with pytest.raises(ValueError, match=r"20\.tif has values from 300 to 300, while others are from 0 to 255"):
        collect_all(ImageDataModule(folder))
    assert len(collect_all(ImageDataModule(folder, on_error="skip"))) == 29


def test_16_bits_with_a_transparent_level(tmp_path):
    values = np.full((8, 8), 65_535, np.uint16)
    values[:4] = 257
    Image.fromarray(values).save(tmp_path / "x.png", transparency=257)
    for i in range(12):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    data = ImageDataModule(tmp_path, background="white", channels=1)
    assert np.ones((1, 8, 8), np.float32).tobytes() in collect_all(data)


def test_levels_and_bytes_agree():
    for white, kind in ((1, np.float32), (255, np.int64), (65_535, np.uint16)):
        values = np.linspace(0, white, 256).astype(kind)
        assert Levels.of(values).white("x") == white
        assert (to_bytes(values, white) == np.arange(256)).all()
