"""Credential helpers: docker's protocol of programs named docker-credential-NAME.

The program gets one argument (get, store, erase) and reads from standard input; it says what it found, or
what went wrong, on standard output. Neither is ever shown.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from contextlib import suppress
from shutil import which
from typing import IO, TYPE_CHECKING, Final, cast

from ocitool import strictjson
from ocitool.errors import OciError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SECONDS: Final = 30.0
_MAX_OUTPUT: Final = 64 << 10
_NOT_FOUND: Final = "credentials not found in native keychain"


def get(name: str, server: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """User name and secret for a server, or None.

    Raises:
        OciError: the helper is missing, fails, takes too long, or says something else.
    """
    code, output = _run(name, "get", server.encode(), environ)
    if code:
        if output.strip() == _NOT_FOUND.encode():
            return None
        raise OciError(
            f"the credential helper {name} failed for {server}", hint=f"docker-credential-{name} get"
        )
    fields = strictjson.load_object(output, f"the answer of credential helper {name}")
    username, secret = fields.get("Username"), fields.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str):
        raise OciError(f"the credential helper {name} does not give Username and Secret")
    return (username, secret) if username or secret else None


def store(name: str, server: str, username: str, secret: str, environ: Mapping[str, str]) -> None:
    """Have a secret kept.

    Raises:
        OciError: as `get`.
    """
    document = strictjson.dumps({"ServerURL": server, "Username": username, "Secret": secret})
    if _run(name, "store", document, environ)[0]:
        raise OciError(f"the credential helper {name} does not keep the credentials of {server}")


def erase(name: str, server: str, environ: Mapping[str, str]) -> None:
    """Have a secret forgotten; it is no error that there is none.

    Raises:
        OciError: as `get`.
    """
    code, output = _run(name, "erase", server.encode(), environ)
    if code and output.strip() != _NOT_FOUND.encode():
        raise OciError(f"the credential helper {name} does not forget the credentials of {server}")


def _run(name: str, verb: str, request: bytes, environ: Mapping[str, str]) -> tuple[int, bytes]:
    if not _NAME.fullmatch(name):
        raise OciError(f"{name!r:.80} is not the name of a credential helper")
    program = which(f"docker-credential-{name}", path=environ.get("PATH"))
    if program is None:
        raise OciError(f"the credential helper docker-credential-{name} is not in PATH")
    with subprocess.Popen(  # noqa: S603 - named by the user's own configuration, and checked
        [program, verb],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(environ),
    ) as process:
        try:
            output = _converse(process, request, name)
        finally:
            process.kill()
        return process.wait(), output


def _converse(process: subprocess.Popen[bytes], request: bytes, name: str) -> bytes:
    """Say and hear, within bounds: `communicate` would read as much as there is."""
    stdin, stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    with suppress(BrokenPipeError):  # a helper need not listen
        stdin.write(request)
        stdin.close()
    deadline = time.monotonic() + _SECONDS
    output = bytearray()
    while select.select([stdout], [], [], max(deadline - time.monotonic(), 0))[0]:
        chunk = os.read(stdout.fileno(), _MAX_OUTPUT)
        output += chunk
        if not chunk:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 1))
                return bytes(output)
            break
        if len(output) > _MAX_OUTPUT:
            raise OciError(f"the credential helper {name} says more than {_MAX_OUTPUT} bytes")
    raise OciError(f"the credential helper {name} takes longer than {_SECONDS:g} seconds")
