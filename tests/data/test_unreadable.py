"""Whatever cannot be read counts as one unreadable file: an error in one sentence, or left out and counted."""

import io
import os

import pytest
from test_sources import collect_all

from lit_generative.data import ImageDataModule


def link_to_nothing(folder):
    (folder / "odd" / "gone.png").symlink_to(folder / "nothing.png")
    return r"odd/gone\.png cannot be read \(a link to nothing\)"


def loop_of_folders(folder):
    (folder / "odd" / "again").symlink_to(folder)
    return r"odd/again cannot be read \(a link to a folder that it lies in\)"


def link_to_itself(folder):
    (folder / "odd" / "self.png").symlink_to(folder / "odd" / "self.png")
    return r"odd/self\.png cannot be read \(.*links?.*\)"


def name_in_latin_1(folder):
    with open(os.fsencode(folder) + b"/odd/caf\xe9.png", "wb") as file:
        file.write((folder / "odd" / "01.png").read_bytes())
    return r"odd/caf\\xe9\.png cannot be read \(its name is not UTF-8"


def folder_in_latin_1(folder):
    os.mkdir(os.fsencode(folder) + b"/caf\xe9")
    return r"caf\\xe9 cannot be read \(its name is not UTF-8"


def pipe(folder):
    os.mkfifo(folder / "odd" / "pipe.png")
    return r"odd/pipe\.png cannot be read \(neither a file nor a folder\)"


@pytest.mark.parametrize(
    "spoil", [link_to_nothing, loop_of_folders, link_to_itself, name_in_latin_1, folder_in_latin_1, pipe]
)
def test_one_unreadable_file_each(folder, spoil):
    message = spoil(folder)
    with pytest.raises(ValueError, match=message + ".*on_error: skip"):
        ImageDataModule(folder).setup("fit")
    data = ImageDataModule(folder, on_error="skip")
    assert len(collect_all(data)) == 30
    assert data.num_skipped("train") == 1


def test_a_folder_that_may_not_be_read(folder, monkeypatch):
    (folder / "secret").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"secret cannot be read \(Permission denied\).*on_error: skip"):
        ImageDataModule(folder).setup("fit")
    assert ImageDataModule(folder, on_error="skip").num_skipped("train") == 1
    with pytest.raises(ValueError, match=r"empty folder \(.*Permission denied"):
        ImageDataModule(folder / "secret").setup("fit")


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.zip", "x.parquet", "train-images-idx3-ubyte"])
def test_a_file_that_may_not_be_read(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"secret")
    open_file = io.open

    def refuse(file, *args, **kwargs):
        if str(file).endswith(name):
            raise PermissionError(13, "Permission denied", str(file))
        return open_file(file, *args, **kwargs)

    monkeypatch.setattr("io.open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ValueError, match=name) as caught:
        ImageDataModule(tmp_path if name.endswith("ubyte") else tmp_path / name).setup("fit")
    assert "\n" not in str(caught.value)


def test_a_path_that_is_not_utf8_is_refused(tmp_path, folder):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.rename(folder, path)
    with pytest.raises(ValueError, match=r"caf\\+xe9.*not UTF-8; rename it"):
        ImageDataModule(path).setup("fit")


@pytest.mark.parametrize("loader", ["training_loader", "val_dataloader"])
def test_a_worker_says_what_is_corrupt_in_one_sentence(folder, loader):
    for file in folder.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:150])
    data = ImageDataModule(folder, in_memory=False, num_workers=1)
    with pytest.raises(ValueError, match="cannot be read as an image") as caught:
        list(getattr(data, loader)())
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_training_batch_of_which_nothing_is_left_has_others(folder):
    (folder / "odd" / "01.png").write_bytes(b"no picture")
    options = {"in_memory": False, "num_workers": 0, "batch_size": 1, "image_size": 28, "channels": 1}
    data = ImageDataModule(folder, on_error="skip", **options)
    assert len(list(data.training_loader())) == data.num_images("train")
    assert len(list(data.training_loader())) == data.num_images("train")
    assert data.num_skipped("train") <= 1
    for file in folder.rglob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        list(ImageDataModule(folder, on_error="skip", **options).training_loader())


def test_a_worker_of_a_stream_says_it_too(tmp_path, hf_cache, pictures):
    import datasets

    features = datasets.Features({"image": datasets.Image()})
    cells = [{"bytes": b"no picture", "path": None} if i % 2 else picture for i, picture in enumerate(pictures[0])]
    datasets.Dataset.from_dict({"image": cells}, features=features).to_parquet(tmp_path / "x.parquet")
    data = ImageDataModule(tmp_path / "x.parquet", streaming=True, num_workers=1, batch_size=8, on_error="skip")
    data.setup("fit")
    data.skip_unreadable = False
    with pytest.raises(ValueError, match="cannot be read as an image") as caught:
        list(data.training_loader())
    assert "\n" not in str(caught.value)
