"""The process in a user namespace that builds there what it is told to (see `ocitool.unpack.namespace`)."""

from __future__ import annotations

import base64
import ctypes
import fcntl
import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

from ocitool.errors import OciError, Unsupported
from ocitool.streams import CHUNK
from ocitool.unpack import pieces
from ocitool.unpack.building import Here
from ocitool.unpack.ownership import in_namespace, recorded
from ocitool.unpack.removal import discard

if TYPE_CHECKING:
    from ocitool.unpack.building import Built

_CLONE_NEWUSER: Final = 0x10000000


def serve() -> None:
    """Enter a user namespace, do what is asked on standard input, and answer on standard output."""
    answers, questions = os.fdopen(os.dup(1), "wb"), sys.stdin.buffer
    os.dup2(2, 1)
    with suppress(OSError):
        fcntl.fcntl(0, fcntl.F_SETPIPE_SZ, CHUNK)
    rootfs = Path()
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER):
            _refuse(ctypes.get_errno())
        _reply(answers, {})
        if line := questions.readline():  # which comes when the ids are mapped
            start = json.loads(line)
            rootfs = Path(start["rootfs"])
            building = _Building(rootfs, questions, answers, keep_owner=start["keep_owner"])
            _reply(answers, {})
            while line := questions.readline():
                message = json.loads(line)
                if "keep" in message:
                    return
                _reply(answers, building.do(message))
    except (OciError, OSError) as error:
        _reply(answers, _told(error))
        while questions.read(CHUNK):  # what was being sent, up to its end
            pass
    with suppress(OSError):  # nobody may be listening any more
        answers.close()
    if rootfs.name:
        discard(rootfs)


class _Building:
    """One root file system, and what can be asked of it."""

    def __init__(self, rootfs: Path, questions: IO[bytes], answers: IO[bytes], *, keep_owner: bool) -> None:
        if keep_owner:  # where one group alone is mapped, nobody may
            os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        owner_of = in_namespace() if keep_owner else recorded(in_namespace())
        self._builder = Here(rootfs, keep_owner=keep_owner, devices=False, owner_of=owner_of)
        self._questions = questions
        self._answers = answers

    def do(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do what a message asks for; the answer."""
        if "apply" in message:
            self._builder.apply(pieces.Pieces(self._questions), max_entries=message["apply"])
            return {}
        if "after" in message:
            return {"changed": self._send_changes(message)}
        return _described(self._builder.finish(message["finish"]))

    def _send_changes(self, asked: dict[str, Any]) -> bool:
        """Send a layer, and its end even if it fails: what went wrong comes after that."""

        def send(data: bytes) -> None:
            pieces.send(self._answers, data)

        without = frozenset(os.fsencode(path) for path in asked["without"])
        try:
            after = Path(asked["after"])
            return self._builder.write_changes(after, send, without=without, latest=asked["latest"])
        finally:
            pieces.end(self._answers)


def _described(built: Built) -> dict[str, Any]:
    return {
        "tally": asdict(built.tally),
        "passwd": base64.b64encode(built.passwd).decode(),
        "group": base64.b64encode(built.group).decode(),
        "mounts": built.wanted.mounts,
        "kept": built.wanted.kept,
    }


def _told(error: OciError | OSError) -> dict[str, Any]:
    if isinstance(error, OSError):
        return {"error": "OciError", "message": f"the user namespace is of no use: {error.strerror}"}
    notes = getattr(error, "__notes__", [])
    return {"error": type(error).__name__, "message": error.message, "hint": error.hint, "notes": notes}


def _refuse(number: int) -> NoReturn:
    raise Unsupported(
        f"the kernel gives no user namespace: {os.strerror(number)}",
        hint="without one, unpack with owners left out (keep_owner=False)",
    )


def _reply(answers: IO[bytes], answer: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()
