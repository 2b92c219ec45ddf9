"""What cannot be read is said to be so, once and clearly, or is left out and counted."""

import contextlib

import datasets
import pytest
from PIL import Image
from test_sources import collect_all

from lit_generative.data import ImageDataModule


def test_damaged_idx_file_is_named(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 28, 0, 0, 0, 28, 1, 2]))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte is damaged.*\(9, 28, 28\).* 2 bytes"):
        _ = ImageDataModule(str(tmp_path)).image_shape


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        ("fashion_mnist", ValueError, "did you mean 'fashion-mnist'"),
        ("zzz", ValueError, "embedded sets: fashion-mnist"),
        ("./no/such/folder", FileNotFoundError, "no such file or folder"),
        ("pictures.parquet", FileNotFoundError, "no such file or folder"),
    ],
)
def test_unknown_names(dataset, error, message):
    with pytest.raises(error, match=message):
        _ = ImageDataModule(dataset).name


def test_unreachable_hub(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("Couldn't reach\nthe Hub\nmany more lines")

    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    with pytest.raises(
        ValueError, match=r"'someone/something': there is no such path here, and .*hub.*Couldn't reach"
    ) as e:
        _ = ImageDataModule("someone/something").name
    assert "\n" not in str(e.value)


def test_empty_folder_and_folder_without_images(tmp_path):
    with pytest.raises(ValueError, match="is an empty folder"):
        _ = ImageDataModule(str(tmp_path)).name
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"holds no images.*notes\.txt"):
        _ = ImageDataModule(str(tmp_path)).name


def test_stray_file_is_an_error_or_counted(folder):
    (folder / "odd" / "notes.txt").write_text("hello")
    (folder / ".hidden").write_text("systems make such files")
    with pytest.raises(ValueError, match=r"notes\.txt is not an image.*on_error: skip"):
        _ = ImageDataModule(str(folder)).name
    data = ImageDataModule(str(folder), on_error="skip")
    assert data.num_skipped("train") == 1
    assert collect_all(data)


@pytest.mark.parametrize("in_memory", [True, False])
def test_corrupt_file_is_an_error_or_counted(folder, in_memory):
    (folder / "odd" / "01.png").write_bytes((folder / "odd" / "01.png").read_bytes()[:150])
    whole = {"val_fraction": 0.1, "in_memory": in_memory, "num_workers": 0}
    with pytest.raises(ValueError, match=r"odd/01\.png cannot be read"):
        collect_all(ImageDataModule(str(folder), **whole))
    data = ImageDataModule(str(folder), on_error="skip", **whole)
    with pytest.warns(UserWarning, match=r"01\.png") if in_memory else contextlib.nullcontext():
        assert len(collect_all(data)) == 29
        assert len(collect_all(data)) == 29
    assert sum(data.num_skipped(split) for split in ("train", "val", "test")) == 1


def test_ambiguous_columns_are_listed(tmp_path, hf_cache, pictures):
    columns = {"before": datasets.Image(), "after": datasets.Image(), "fine": datasets.ClassLabel(names=["a", "b"])}
    features = datasets.Features(
        columns | {"coarse": datasets.ClassLabel(names=["c"]), "size": datasets.Value("int64")}
    )
    rows = {"before": pictures[0], "after": pictures[0], "fine": [0, 1] * 15, "coarse": [0] * 30, "size": [3] * 30}
    path = str(tmp_path / "x.parquet")
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    with pytest.raises(ValueError, match=r"image_column.*before \(Image\), after \(Image\).*size \(int64\)"):
        _ = ImageDataModule(path).image_shape
    with pytest.raises(ValueError, match=r"label_column.*fine \(ClassLabel\)"):
        _ = ImageDataModule(path, image_column="after").image_shape
    with pytest.raises(ValueError, match=r"label_column='finest' is no column"):
        _ = ImageDataModule(path, image_column="after", label_column="finest").image_shape
    assert ImageDataModule(path, image_column="after", label_column="fine").class_names == ["a", "b"]
    assert ImageDataModule(path, image_column="after", label_column=None).num_classes is None
    assert ImageDataModule(path, image_column="after", label_column="size").class_names == ["3"]


def test_mixed_sizes_need_image_size(folder):
    Image.new("L", (40, 20)).save(folder / "odd" / "large.png")
    with pytest.raises(ValueError, match=r"20x40.*28x28.*give image_size"):
        _ = ImageDataModule(str(folder)).image_shape
    assert ImageDataModule(str(folder), image_size=16).image_shape == (1, 16, 16)
    for size in ((24, 12), [24, 12]):
        assert ImageDataModule(str(folder), image_size=size).image_shape == (1, 24, 12)


def test_options_of_the_hub_are_refused_elsewhere():
    with pytest.raises(ValueError, match="revision='main' is for data sets of the hub"):
        _ = ImageDataModule(revision="main").name


def test_damaged_parquet_file_is_named(tmp_path, hf_cache):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 this is not it")
    with pytest.raises(ValueError, match=r"broken\.parquet' cannot be read \(.+\)$"):
        _ = ImageDataModule(str(tmp_path / "broken.parquet")).image_shape


def test_missing_image_is_an_error_or_counted(tmp_path, hf_cache, pictures):
    rows = {"image": [*pictures[0][:20], None, *pictures[0][20:]]}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()}))
    table.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="row 20 of train cannot be read"):
        _ = ImageDataModule(str(tmp_path / "x.parquet")).image_shape
    for options in ({"in_memory": False, "num_workers": 0}, {"streaming": True, "num_workers": 0}):
        data = ImageDataModule(str(tmp_path / "x.parquet"), on_error="skip", **options)
        assert len(collect_all(data)) == 30
        assert sum(data.num_skipped(split) for split in ("train", "val", "test")) == 1
