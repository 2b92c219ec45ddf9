"""Archives keep their classes, and hostile ones are refused in one sentence without writing anything."""

import gzip
import io
import os
import shutil
import tarfile
import zipfile

import pytest
from PIL import Image
from test_sources import collect_all, fingers, png

from lit_generative.data import ImageDataModule

MIB = 2**20
MODES = {".tar": "w", ".TAR.GZ": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}
JUNK = ("@eaDir/a.jpg", "even/@eaDir/a.jpg", ".thumbnails/a.png", "odd/._01.png", "Thumbs.db", "__MACOSX/odd/._01.png")
JUNK += (".DS_Store", "even/.ipynb_checkpoints/a.png", "odd/desktop.ini")


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def make_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def refusal(path, **options):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ImageDataModule(path, **options).setup("fit")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def add_junk(folder):
    for name in JUNK:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no picture")


def test_what_systems_leave_in_folders_is_no_picture(folder, pictures):
    add_junk(folder)
    data = ImageDataModule(folder)
    assert data.class_names == ["even", "odd"]
    assert collect_all(data) == fingers(pictures[0])
    assert data.num_skipped("train") == 0


@pytest.mark.parametrize("ending", MODES)
@pytest.mark.parametrize("above", ["", "archive/clothes"])
def test_a_tar_of_class_folders_keeps_its_classes(tmp_path, hf_cache, folder, pictures, ending, above):
    add_junk(folder)
    with tarfile.open(tmp_path / f"things{ending}", MODES[ending]) as archive:
        archive.add(folder, above or ".")
    data = ImageDataModule(tmp_path / f"things{ending}", in_memory=False, num_workers=0)
    assert (data.name, data.class_names) == ("things", ["even", "odd"])
    assert collect_all(data) == fingers(pictures[0])


def test_a_zip_from_windows_keeps_its_classes(tmp_path, folder, pictures):
    members = []
    for file in sorted(folder.rglob("*.png")):
        info = zipfile.ZipInfo("")
        info.filename = "\\".join(("Clothes", *file.relative_to(folder).parts))
        members.append((info, file.read_bytes()))
    data = ImageDataModule(make_zip(tmp_path / "CLOTHES.ZIP", members))
    assert data.class_names == ["even", "odd"]
    assert collect_all(data) == fingers(pictures[0])


def test_an_archive_with_splits_has_them(tmp_path, hf_cache, folder):
    for split in ("train", "test"):
        shutil.copytree(folder, tmp_path / "all" / split)
    for kind in ("zip", "gztar"):
        data = ImageDataModule(shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path, "all"))
        assert [data.num_images(split) for split in ("train", "val", "test")] == [27, 3, 30]
        assert data.class_names == ["even", "odd"]


def bombs(folder):
    zeros = bytes(2 * MIB)
    yield make_zip(folder / "member.zip", [("a.png", zeros)])
    yield make_zip(folder / "many.zip", [(f"{i}.bmp", bytes(MIB // 8)) for i in range(16)])
    yield make_zip(folder / "hidden.zip", [("a.png", os.urandom(MIB)), ("b.png", zeros)])
    yield make_tar(folder / "bomb.tar.gz", [("a.png", zeros)], "w:gz")
    yield make_tar(folder / "bomb.tar.xz", [("a.png", zeros)], "w:xz")
    (folder / "idx").mkdir()
    with gzip.open(folder / "idx" / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 4, 0, 0, 0, 4, 0]) + zeros)
    yield folder / "idx"


def test_what_unpacks_to_far_more_than_itself_is_refused_and_leaves_nothing(tmp_path, hf_cache, monkeypatch):
    monkeypatch.setattr("lit_generative.data.archives._HARMLESS", MIB)
    for path in bombs(tmp_path):
        message = refusal(path)
        assert "over 100 times as many" in message
        assert path.stem.split(".")[0] in message
    assert not [file for file in hf_cache.rglob("*") if file.is_file() and file.suffix != ".lock"]


def test_an_archive_of_much_that_hardly_shrinks_is_read(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr("lit_generative.data.archives._HARMLESS", 1000)
    path = make_zip(tmp_path / "large.zip", [(f"{i}.png", png(picture)) for i, picture in enumerate(pictures[0])])
    assert collect_all(ImageDataModule(path)) == fingers(pictures[0])


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "C:\\evil.png", "..\\evil.png"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_names_that_lead_out_are_refused(tmp_path, hf_cache, pictures, make, name):
    members = [(f"{i}.png", png(picture)) for i, picture in enumerate(pictures[0][:12])]
    path = make(tmp_path / f"x{'.zip' if make is make_zip else '.tar'}", [*members, (name, png(pictures[0][0]))])
    before = set(tmp_path.parent.rglob("*"))
    for options in ({}, {"on_error": "skip"}):
        assert "leads out of it" in refusal(path, **options)
    assert set(tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_no_pictures(tmp_path, hf_cache, pictures, kind):
    info = tarfile.TarInfo("x.png")
    info.type, info.linkname = kind, "/etc/passwd"
    members = [(f"{i}.png", png(picture)) for i, picture in enumerate(pictures[0])]
    path = make_tar(tmp_path / "x.tar", [*members, (info, b"")])
    assert "x.png" in refusal(path)
    data = ImageDataModule(path, on_error="skip")
    assert data.num_skipped("train") == 1
    assert collect_all(data) == fingers(pictures[0])


def test_a_link_in_a_zip_is_no_picture(tmp_path, pictures):
    info = zipfile.ZipInfo("x.png")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    members = [(f"{i}.png", png(picture)) for i, picture in enumerate(pictures[0])]
    assert "a link" in refusal(make_zip(tmp_path / "x.zip", [*members, (info, "/etc/passwd")]))


def test_an_archive_in_an_archive_is_not_unpacked(tmp_path, folder):
    inner = shutil.make_archive(str(tmp_path / "inner"), "zip", folder)
    with open(inner, "rb") as file:
        path = make_zip(tmp_path / "outer.zip", [("inner.zip", file.read())])
    assert "holds no images" in refusal(path)


def test_an_image_that_announces_billions_of_pixels_is_one_that_cannot_be_read(folder):
    Image.new("L", (28, 28)).save(folder / "odd" / "bomb.pgm")
    (folder / "odd" / "bomb.pgm").write_bytes(b"P5 99999 99999 255\n")
    for options in ({}, {"image_size": 28, "channels": 1}):
        assert "bomb.pgm cannot be read" in refusal(folder, **options)
    assert len(collect_all(ImageDataModule(folder, on_error="skip"))) == 30


def test_what_another_program_would_have_to_draw_is_no_picture(folder):
    (folder / "odd" / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\n")
    assert "program.png cannot be read as an image (not an image)" in refusal(folder)
    (folder / "odd" / "program.png").rename(folder / "odd" / "program.eps")
    assert "program.eps is not an image" in refusal(folder)
