"""A power cut, played: what was written is recorded call by call, and what was not synced is taken back.

The model is the least that POSIX promises. What a file holds lasts from the `fsync` of the file on, and the
names in a directory from the `fsync` of the directory on. Of what came after, anything may have happened.
"""

from __future__ import annotations

import gc
import os
import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Operation:
    """One system call: its kind, the directory and name or the file that it is about, and the details."""

    kind: str
    where: str
    name: str = ""
    inode: int = 0
    content: bytes = b""
    to: tuple[str, str] = ("", "")


@dataclass
class Recorder:
    """Takes down every change that the thread makes which made it."""

    log: list[Operation] = field(default_factory=list)
    thread: int = field(default_factory=threading.get_ident)

    @contextmanager
    def attached(self) -> Iterator[pytest.MonkeyPatch]:
        """Listen to the functions of `os` that change a file system or make that last."""
        # What other tests have left is not finalised meanwhile: that would be taken down as well.
        gc.collect()
        gc.disable()
        try:
            with pytest.MonkeyPatch.context() as patch:
                for name in ("open", "write", "ftruncate", "fsync", "rename", "mkdir", "unlink"):
                    patch.setattr(os, name, self._listening(getattr(os, name), getattr(self, f"_{name}")))
                yield patch
        finally:
            gc.enable()

    def _listening(self, call: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def listening(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self.thread:
                return call(*args, **kwargs)
            before = len(self.log)
            existed = self._exists(*args, **kwargs) if note == self._open else False
            result = call(*args, **kwargs)
            if not existed:
                note(result, *args, **kwargs)
            assert len(self.log) <= before + 1
            return result

        return listening

    @staticmethod
    def _exists(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> bool:
        if not flags & os.O_CREAT:
            return True
        try:
            os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _open(self, fd: int, path: Any, flags: int, mode: int = 0, *, dir_fd: int | None = None) -> None:
        self.log.append(Operation("create", *_place(path, dir_fd), inode=os.fstat(fd).st_ino))

    def _write(self, _: int, fd: int, data: bytes) -> None:
        content = Path(f"/proc/self/fd/{fd}").read_bytes()
        self.log.append(Operation("data", "", inode=os.fstat(fd).st_ino, content=content))

    def _ftruncate(self, _: None, fd: int, length: int) -> None:
        self._write(0, fd, b"")

    def _fsync(self, _: None, fd: int) -> None:
        where = str(Path(f"/proc/self/fd/{fd}").readlink())
        kind = "sync names" if Path(where).is_dir() else "sync data"
        self.log.append(Operation(kind, where, inode=os.fstat(fd).st_ino))

    def _rename(
        self, _: None, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        self.log.append(Operation("rename", *_place(src, src_dir_fd), to=_place(dst, dst_dir_fd)))

    def _mkdir(self, _: None, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self.log.append(Operation("mkdir", *_place(path, dir_fd)))

    def _unlink(self, _: None, path: Any, *, dir_fd: int | None = None) -> None:
        self.log.append(Operation("unlink", *_place(path, dir_fd)))


def _place(path: Any, dir_fd: int | None) -> tuple[str, str]:
    parent = Path(f"/proc/self/fd/{dir_fd}").readlink() if dir_fd is not None else Path.cwd()
    whole = parent / os.fspath(path)
    return str(whole.parent), whole.name


@dataclass
class Names:
    """A directory: what it holds, and what it would hold after a power cut. Subdirectories are None."""

    now: dict[str, int | None] = field(default_factory=dict)
    lasting: dict[str, int | None] = field(default_factory=dict)


@dataclass
class Data:
    """A file's content, likewise."""

    now: bytes = b""
    lasting: bytes = b""


class Disk:
    """A file system of which everything is known, below one directory."""

    def __init__(self, root: Path) -> None:
        """Begin with what is there, which has been there for long."""
        self.root = root
        self.names: dict[str, Names] = {}
        self.data: dict[int, Data] = {}
        for path, directories, file_names in os.walk(root):
            held: dict[str, int | None] = dict.fromkeys(directories)
            for name in file_names:
                file = Path(path) / name
                held[name] = file.stat().st_ino
                self.data[file.stat().st_ino] = Data(file.read_bytes(), file.read_bytes())
            self.names[path] = Names(dict(held), dict(held))

    def apply(self, done: Operation) -> None:
        """Do one operation."""
        if done.kind == "data":
            self.data.setdefault(done.inode, Data()).now = done.content
        elif done.kind == "sync data":
            data = self.data.setdefault(done.inode, Data())
            data.lasting = data.now
        elif done.kind == "sync names":
            names = self.names.setdefault(done.where, Names())
            names.lasting = dict(names.now)
        else:
            self._rename_or_make(done)

    def _rename_or_make(self, done: Operation) -> None:
        held = self.names.setdefault(done.where, Names()).now
        if done.kind == "create":
            held[done.name] = done.inode
            self.data.setdefault(done.inode, Data())
        elif done.kind == "mkdir":
            held[done.name] = None
            self.names.setdefault(f"{done.where}/{done.name}", Names())
        elif done.kind == "unlink":
            held.pop(done.name, None)
        else:
            self.names.setdefault(done.to[0], Names()).now[done.to[1]] = held.pop(done.name)

    def write_out(self, target: Path, luck: random.Random | None, *, names_last: bool) -> None:
        """What is found when the power is back.

        Args:
            target: where to put it.
            luck: decides what of the unsynced made it to the disk; None: nothing did.
            names_last: instead, all names did, and no content: what ext4 calls delayed allocation.
        """
        self._write_out(str(self.root), target, luck, names_last=names_last)

    def _write_out(self, path: str, target: Path, luck: random.Random | None, *, names_last: bool) -> None:
        target.mkdir(exist_ok=True)
        names = self.names.get(path, Names())
        for name in sorted({*names.now, *names.lasting}):
            new = names_last or (luck is not None and luck.random() < 0.5)
            held = names.now if new else names.lasting
            if name not in held:
                continue
            inode = held[name]
            if inode is None:
                self._write_out(f"{path}/{name}", target / name, luck, names_last=names_last)
                continue
            data = self.data[inode]
            choices = [data.lasting, data.now, bytes(len(data.now)), data.now[: len(data.now) // 2]]
            # What was synced last can't be lost; what was overwritten since may be anything.
            certain = luck is None or data.lasting == data.now
            (target / name).write_bytes(data.lasting if certain or luck is None else luck.choice(choices))
