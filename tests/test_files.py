"""Files that are whole at any time."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_generative.checkpoints import WholeCheckpoints
from lit_generative.files import check_folder, make_folder, replacing


def test_a_file_is_replaced_in_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    for text in ("before", "after"):
        with replacing(path) as scratch:
            scratch.write_text(text)
            assert not path.exists() or path.read_text() == "before"
        assert path.read_text() == text
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "file.txt").write_text("before")

    def write() -> None:
        with replacing(tmp_path / "file.txt") as scratch:
            scratch.write_text("half of i")
            raise error

    with pytest.raises(type(error)):
        write()
    assert (tmp_path / "file.txt").read_text() == "before"
    assert len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("[enforce fail at inline_container.cc]")]
)
def test_a_full_disk_is_one_sentence_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"a": 1}, path)

    def full(contents: Any, scratch: Path) -> None:
        scratch.write_bytes(b"PK")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"last\.ckpt cannot be written: .*; the one before is still there"):
        WholeCheckpoints().save_checkpoint({"a": 2}, path)
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"a": 1}
    assert [*tmp_path.iterdir()] == [path]


def test_checkpoints_do_not_go_through_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    moved: list[tuple[Path, Path]] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (moved.append((Path(a), Path(b))), replace(a, b))[1])
    WholeCheckpoints().save_checkpoint({"a": 1}, tmp_path / "last.ckpt")
    assert [(a.parent, b) for a, b in moved] == [(tmp_path, tmp_path / "last.ckpt")]


@pytest.mark.parametrize("below", ["file.txt", "file.txt/deeper", "x" * 300])
def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path, below: str) -> None:
    (tmp_path / "file.txt").touch()
    with pytest.raises(ValueError, match=r"^output=.*: nothing can be written there: .*; give another$"):
        make_folder(tmp_path / below, "output")


def test_a_check_leaves_no_trace(tmp_path: Path) -> None:
    check_folder(tmp_path / "new" / "newer", "output")
    check_folder(tmp_path, "output")
    assert not [*tmp_path.iterdir()]
