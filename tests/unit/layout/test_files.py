"""No error of the operating system leaves undressed, and no file is read without a bound."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ocitool.errors import InvalidContent, NotFound, OciError, UnsafeContent
from ocitool.layout import files

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.ENOENT, NotFound, "blob x is not in the layout"),
        (errno.ELOOP, UnsafeContent, "is a link or no regular file"),
        (errno.ENOTDIR, UnsafeContent, "is a link or no regular file"),
        (errno.ENOSPC, OciError, "no space for blob x"),
        (errno.EDQUOT, OciError, "no space for blob x"),
        (errno.EACCES, OciError, "can't be used: Permission denied"),
        (errno.EROFS, OciError, "can't be used: Read-only file system"),
        (errno.ENOLCK, OciError, "can't be used safely"),
        (errno.EOPNOTSUPP, OciError, "can't be used safely"),
        (errno.EIO, OciError, "Input/output error"),
    ],
)
def test_every_error_says_what_and_where(
    tmp_path: Path, number: int, error: type[OciError], words: str
) -> None:
    with pytest.raises(error) as caught, files.translated("blob x", tmp_path, needed=12):
        raise OSError(number, os.strerror(number))
    assert words in caught.value.message
    assert str(tmp_path) in caught.value.message
    assert isinstance(caught.value.__cause__, OSError)


def test_a_full_disk_says_what_is_needed_and_what_is_free(tmp_path: Path) -> None:
    with pytest.raises(OciError) as caught, files.translated("blob x", tmp_path / "not" / "yet", needed=12):
        raise OSError(errno.ENOSPC, "")
    assert caught.value.hint.startswith("12 bytes are needed, ")
    assert "inodes are free" in caught.value.hint


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(KeyError), files.translated("blob x", tmp_path):
        raise KeyError


def test_a_file_is_read_up_to_its_limit_and_no_further(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    with files.directory(tmp_path) as parent:
        assert files.read_file(parent, "f", 5) == b"12345"
        with pytest.raises(InvalidContent, match="larger than 4 bytes"):
            files.read_file(parent, "f", 4)


def test_a_file_that_is_replaced_is_whole_or_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(b"old")
    private = tmp_path / "private"
    private.mkdir()

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, "")

    with files.directory(tmp_path) as parent, files.directory(private) as temporary:
        files.replace_file(temporary, parent, "f", b"new")
        assert (tmp_path / "f").read_bytes() == b"new"
        monkeypatch.setattr(os, "fsync", failing)
        with pytest.raises(OSError, match="5"):
            files.replace_file(temporary, parent, "f", b"newer")
    assert (tmp_path / "f").read_bytes() == b"new"
    assert not list(private.iterdir())


def test_directories_are_made_all_the_way(tmp_path: Path) -> None:
    files.make_root(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    files.make_root(tmp_path / "a" / "b" / "c")


def test_what_is_written_in_parts_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    with (tmp_path / "file").open("wb") as file:
        files.write_all(file.fileno(), b"much more than seven bytes")
    assert (tmp_path / "file").read_bytes() == b"much more than seven bytes"


@pytest.mark.parametrize("plant", [Path.symlink_to, Path.hardlink_to])
def test_im_07_a_temporary_file_that_somebody_has_planted_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path, Path], None]
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    plant(tmp_path / "index.json.guessed", victim)
    with files.directory(tmp_path) as root, pytest.raises(FileExistsError):
        files.replace_file(root, root, "index.json", b"{}")
    assert victim.read_bytes() == b"precious"
