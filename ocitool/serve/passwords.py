"""Who may use a registry: HTTP Basic authentication against an htpasswd file."""

from __future__ import annotations

import base64
import ctypes
import hmac
import re
import secrets
from typing import TYPE_CHECKING, Final, Protocol

from ocitool.errors import InvalidContent, NotFound, Unsupported
from ocitool.serve.messages import Refused

if TYPE_CHECKING:
    from pathlib import Path

# bcrypt, and SHA-crypt with 256 and 512 bits. The others that htpasswd writes are broken (crypt, {SHA},
# plain text) or fast enough to be guessed (apr1), so they are refused and not merely discouraged.
_STRONG: Final = re.compile(r"\$(?:2[aby]|5|6)\$[./A-Za-z0-9$=]+")
# Larger than struct crypt_data of any C library; glibc's own, long gone, had 131,232 bytes.
_CRYPT_DATA: Final = 1 << 18
_REMEMBERED: Final = 1000


class Passwords(Protocol):
    """Whoever knows users' passwords; called from several threads at once."""

    def check(self, user: str, password: str, /) -> bool:
        """Whether this is the user's password. May take as long as good hashes do."""
        ...


class Htpasswd:
    """An htpasswd file, read again when it changes.

    The hashes are computed by the system's libcrypt, which all Linux distributions have.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            NotFound: there is none.
            InvalidContent: a line is not user:hash, or its hash is not a strong one.
            Unsupported: this system's libcrypt is missing, or does not know a hash.
        """
        self._path = path
        self._crypt = _Crypt()
        self._stamp, self._hashes = self._read()
        self._key = secrets.token_bytes(32)
        self._remembered: dict[bytes, str] = {}

    def check(self, user: str, password: str, /) -> bool:
        """See `Passwords`."""
        if _stamp(self._path) != self._stamp:
            self._stamp, self._hashes = self._read()
        stored = self._hashes.get(user)
        # A good hash is slow on purpose, and one pull asks a dozen times: who was right once is remembered,
        # by a digest that is worth nothing outside this process.
        token = hmac.digest(self._key, f"{user}\0{password}".encode(), "sha256")
        if stored is not None and self._remembered.get(token) == stored:
            return True
        # An unknown user takes as long as a known one.
        setting = stored or next(iter(self._hashes.values()), "$6$none$")
        right = hmac.compare_digest(self._crypt(password, setting), setting) and stored is not None
        if right and stored is not None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[token] = stored
        return right

    def _read(self) -> tuple[tuple[int, int, int], dict[str, str]]:
        stamp = _stamp(self._path)
        hashes: dict[str, str] = {}
        for number, line in enumerate(self._path.read_text("utf-8").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            user, _, stored = line.strip().partition(":")
            if not user or not _STRONG.fullmatch(stored):
                raise InvalidContent(
                    f"line {number} of {self._path} is not a user and a bcrypt or SHA-crypt hash",
                    hint="write it with: htpasswd -B FILE USER",
                )
            # The hash itself, as a setting, proves that libcrypt knows its kind.
            if len(self._crypt("", stored)) != len(stored):
                raise Unsupported(
                    f"this system's libcrypt does not know the hash on line {number} of {self._path}"
                )
            hashes[user] = stored
        return stamp, hashes


class _Crypt:
    """crypt_r(3), from wherever this system has it."""

    def __init__(self) -> None:
        self._crypt_r = _load()
        self._crypt_r.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
        self._crypt_r.restype = ctypes.c_char_p

    def __call__(self, password: str, setting: str) -> str:
        """The hash of a password; "" where it can't be computed."""
        if "\0" in password:
            return ""
        data = ctypes.create_string_buffer(_CRYPT_DATA)
        result = self._crypt_r(password.encode(), setting.encode(), data)
        return result.decode() if result else ""


def _load() -> ctypes._NamedFuncPointer:
    for library in ("libcrypt.so.1", "libcrypt.so.2", None):
        try:
            return ctypes.CDLL(library).crypt_r
        except (OSError, AttributeError):
            continue
    raise Unsupported(
        "this system has no libcrypt, so htpasswd files can't be used", hint="install libcrypt1"
    )


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise NotFound(f"{path} can't be read: {error.strerror}") from error
    return status.st_ino, status.st_mtime_ns, status.st_size


def basic(header: str) -> tuple[str, str] | None:
    """User and password of an Authorization header (RFC 7617); None where it has none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:  # letters that are none of base64's, too few of them, or bytes that are no text
        return None
    return (user, password) if colon else None


def challenge() -> Refused:
    """The answer to whoever has not said, or not proved, who they are (RFC 7617)."""
    return Refused(
        401,
        "UNAUTHORIZED",
        "this registry wants a user name and a password",
        headers={"www-authenticate": 'Basic realm="ocitool", charset="UTF-8"'},
    )
