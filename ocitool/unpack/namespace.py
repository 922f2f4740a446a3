"""Building in a user namespace, where an ordinary user may give files to the ids that they were given.

A process of its own enters the namespace, because a process with threads can't; it gets the layers'
tar streams, already verified as they pass, through a pipe, and answers with what it made or what went wrong.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ocitool import errors
from ocitool.errors import OciError, Unsupported
from ocitool.streams import CHUNK, chunks
from ocitool.unpack import pieces, volumes
from ocitool.unpack.building import Built
from ocitool.unpack.idmap import HELPERS
from ocitool.unpack.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

    from ocitool.streams import Reader
    from ocitool.unpack.idmap import IdMap, Range

_START: Final = (
    "import sys; sys.path[:] = {path!r}; from ocitool.unpack import namespaced; namespaced.serve()"
)
_GONE: Final = "the process that unpacks in a user namespace ended unexpectedly"


class Mapped:
    """Builds in a user namespace with these ids; the other end of `namespaced.serve`."""

    def __init__(self, rootfs: Path, ids: IdMap, *, keep_owner: bool = True) -> None:
        """Start the process.

        Args:
            rootfs: where to build.
            ids: the namespace's.
            keep_owner: give files the owners that the image names, and not only record those.

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
            if ids.single:
                _map_only_me(self._child.pid)
            else:
                for helper, ranges in zip(HELPERS, (ids.uids, ids.gids), strict=True):
                    _map(helper, self._child.pid, ranges)
            self._say({"rootfs": str(rootfs), "keep_owner": keep_owner})
            self._answer()
        except BaseException:
            self.close(keep=False)
            raise

    def apply(self, stream: Reader, /, *, max_entries: int) -> None:
        """See `Builder`."""
        self._say({"apply": max_entries})
        try:
            for chunk in chunks(stream, CHUNK):
                pieces.send(self._to, chunk)
            pieces.end(self._to)
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

    def write_changes(
        self,
        after: Path,
        write: Callable[[bytes], object],
        /,
        *,
        without: frozenset[bytes],
        latest: int | None,
    ) -> bool:
        """See `Builder`."""
        names = [os.fsdecode(path) for path in without]
        self._say({"after": str(after), "without": names, "latest": latest})
        for chunk in chunks(pieces.Pieces(self._from), CHUNK):
            write(chunk)
        changed: bool = self._answer()["changed"]
        return changed

    def close(self, *, keep: bool) -> None:
        """See `Builder`: outside the namespace, nobody may remove what was built."""
        if keep:
            self._say({"keep": True})
        with suppress(OSError):
            self._to.close()
        self._from.close()  # first, because the process may be about to say more
        self._child.wait()

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


def _map_only_me(pid: int) -> None:
    """Map one user and one group, for which nobody's help is needed (user_namespaces(7))."""
    try:
        Path(f"/proc/{pid}/setgroups").write_text("deny")
        Path(f"/proc/{pid}/uid_map").write_text(f"0 {os.geteuid()} 1")
        Path(f"/proc/{pid}/gid_map").write_text(f"0 {os.getegid()} 1")
    except OSError as error:
        raise Unsupported(f"the kernel maps no ids: {error.strerror}") from error


def _map(helper: str, pid: int, ranges: Sequence[Range]) -> None:
    numbers = [str(number) for part in ranges for number in part]
    # Numbers only, to a program that trusts nobody.
    command = [helper, str(pid), *numbers]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - as above
    if done.returncode:
        raise Unsupported(
            f"{helper} refuses: {done.stderr.strip()}",
            hint="without it, unpack with owners left out (keep_owner=False)",
        )
