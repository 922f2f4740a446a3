"""Building in a user namespace, where an ordinary user may give files to the ids that they were given.

A process of its own enters the namespace, because a process with threads can't; it gets the layers'
tar streams, already verified as they pass, through a pipe, and answers with what it made or what went wrong.
"""

from __future__ import annotations

import base64
import ctypes
import fcntl
import json
import os
import struct
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ocitool import errors
from ocitool.errors import OciError, Unsupported
from ocitool.streams import CHUNK, chunks
from ocitool.unpack import volumes
from ocitool.unpack.building import Built, Here
from ocitool.unpack.idmap import HELPERS
from ocitool.unpack.removal import discard
from ocitool.unpack.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

    from ocitool.streams import Reader
    from ocitool.unpack.idmap import IdMap, Range

_CLONE_NEWUSER: Final = 0x10000000
_LENGTH: Final = struct.Struct(">I")
_START: Final = "import sys; sys.path[:] = {path!r}; from ocitool.unpack import namespace; namespace.serve()"


class Mapped:
    """Builds in a user namespace with these ids; the other end of `serve`."""

    def __init__(self, rootfs: Path, ids: IdMap) -> None:
        """Start the process.

        Raises:
            Unsupported: the kernel, or the helpers that map ids, refuse.
        """
        command = [sys.executable, "-I", "-c", _START.format(path=sys.path)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - ourselves
        if self._child.stdin is None or self._child.stdout is None:  # pragma: no cover - they are pipes
            raise AssertionError
        self._to: IO[bytes] = self._child.stdin
        self._from: IO[bytes] = self._child.stdout
        try:
            self._answer()
            for helper, ranges in zip(HELPERS, (ids.uids, ids.gids), strict=True):
                _map(helper, self._child.pid, ranges)
            self._say({"rootfs": str(rootfs)})
            self._answer()
        except BaseException:
            self.close(keep=False)
            raise

    def apply(self, stream: Reader, /, *, max_entries: int) -> None:
        """See `Builder`."""
        self._say({"apply": max_entries})
        try:
            for chunk in chunks(stream, CHUNK):
                self._to.write(_LENGTH.pack(len(chunk)) + chunk)
            self._to.write(_LENGTH.pack(0))
            self._to.flush()
        except BrokenPipeError:
            pass  # the answer says why
        self._answer()

    def finish(self, wanted: Sequence[str], /) -> Built:
        """See `Builder`."""
        self._say({"finish": list(wanted)})
        answer = self._answer()
        passwd, group = (base64.b64decode(answer[key]) for key in ("passwd", "group"))
        found = volumes.Wanted(answer["mounts"], tuple(answer["kept"]))
        return Built(Tally(**answer["tally"]), passwd, group, found)

    def close(self, *, keep: bool) -> None:
        """See `Builder`: outside the namespace, nobody may remove what was built."""
        if keep:
            self._say({"keep": True})
        with suppress(OSError):
            self._to.close()
        self._child.wait()
        self._from.close()

    def _say(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):
            self._to.write(json.dumps(message).encode() + b"\n")
            self._to.flush()

    def _answer(self) -> dict[str, Any]:
        line = self._from.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "OciError", "message": _GONE}
        if "error" in answer:
            error: OciError = getattr(errors, answer["error"])(answer["message"], hint=answer.get("hint", ""))
            for note in answer.get("notes", ()):
                error.add_note(note)
            raise error
        return answer


_GONE: Final = "the process that unpacks in a user namespace ended unexpectedly"


def _map(helper: str, pid: int, ranges: Sequence[Range]) -> None:
    numbers = [str(number) for part in ranges for number in part]
    # Numbers only, to a program that trusts nobody.
    command = [helper, str(pid), *numbers]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise Unsupported(
            f"{helper} refuses: {done.stderr.strip()}",
            hint="without it, unpack with owners left out (keep_owner=False)",
        )


# The process inside


def serve() -> None:
    """Enter a user namespace, do what is asked on standard input, and answer on standard output."""
    answers, questions = os.fdopen(os.dup(1), "wb"), sys.stdin.buffer
    os.dup2(2, 1)
    with suppress(OSError):
        fcntl.fcntl(0, fcntl.F_SETPIPE_SZ, CHUNK)
    builder: Here | None = None
    rootfs = Path()
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER):
            _refuse(ctypes.get_errno())
        _reply(answers, {})
        while line := questions.readline():
            message = json.loads(line)
            answer: dict[str, Any] = {}
            if "rootfs" in message:
                os.setgroups([])
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
                rootfs = Path(message["rootfs"])
                builder = Here(rootfs, keep_owner=True, devices=False)
            elif "keep" in message:
                return
            elif builder and "apply" in message:
                builder.apply(_Framed(questions), max_entries=message["apply"])
            elif builder:
                answer = _built(builder.finish(message["finish"]))
            _reply(answers, answer)
    except (OciError, OSError) as error:
        _reply(answers, _told(error))
        while questions.read(CHUNK):  # what was being sent, up to its end
            pass
    if rootfs.name:
        discard(rootfs)


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


def _built(built: Built) -> dict[str, Any]:
    return {
        "tally": asdict(built.tally),
        "passwd": base64.b64encode(built.passwd).decode(),
        "group": base64.b64encode(built.group).decode(),
        "mounts": built.wanted.mounts,
        "kept": built.wanted.kept,
    }


class _Framed:
    """The tar stream between two messages: pieces with their length before them, the last one empty."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._left = -1

    def read(self, n: int = -1, /) -> bytes:
        """Read on, at most to the end of a piece."""
        if self._left < 0:
            head = self._pipe.read(_LENGTH.size)
            if len(head) != _LENGTH.size:
                raise OciError("the layers' stream was cut off")
            (self._left,) = _LENGTH.unpack(head)
        if not self._left:
            return b""
        data = self._pipe.read(self._left if n < 0 else min(n, self._left))
        if not data:
            raise OciError("the layers' stream was cut off")
        self._left = (self._left - len(data)) or -1
        return data
