"""Every error that ocitool raises on purpose, and the exit code each becomes.

::

    OciError                      1
    ├── InvalidReference          2   what the user typed
    ├── InvalidDigest             2
    ├── NotFound                 10   blob, manifest, tag, repository, container, platform
    ├── RegistryError            12   a registry's answer
    │   ├── Unauthorized         11   401 or 403 after the token flow
    │   └── Unreachable          12   no answer at all
    ├── IntegrityError           13   digest, size, diff ID or signature are not what was promised
    ├── InvalidContent           14   manifest, index, layout, config, tar
    │   └── UnsafeContent        15   escapes its root, exceeds a limit
    ├── Unsupported              16   media type, algorithm, kernel feature
    ├── Conflict                 17   exists, is locked, is in the wrong state
    └── RunError                125   run only: 126 cannot execute, 127 not found

An error says what went wrong and where in one sentence; `hint` says what to do about it. Whoever
passes an error on adds what they know with `add_note` ("while pushing sha256:… to …"), so that its
type and code survive. One place (`ocitool.console`) turns an error into text and an exit code.

This module imports nothing, so that every other one may import it.
"""

from __future__ import annotations


class OciError(Exception):
    """The base of the tree.

    Attributes:
        message: one sentence: what, and where.
        hint: what the person reading can do about it, or "".
    """

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def kind(self) -> str:
        """Its name in the tree above, also where a module has made a class of its own of it."""
        return next(base.__name__ for base in type(self).__mro__ if base.__module__ == __name__)


class InvalidReference(OciError):
    """A reference, location or platform that does not follow its grammar."""

    exit_code = 2


class InvalidDigest(OciError):
    """A digest that does not follow its grammar (image-spec, descriptor.md, "Digests")."""

    exit_code = 2


class NotFound(OciError):
    """Something that was asked for by name is not there."""

    exit_code = 10


class RegistryError(OciError):
    """A registry refused, or answered what the distribution-spec does not allow.

    Attributes:
        method: the request's method, or "".
        url: the request's URL without secrets, or "".
        status: the HTTP status, or 0 where there was no answer.
        codes: the error codes of the body (distribution-spec, "Error Codes").
        temporary: whether the same request may succeed later.
    """

    exit_code = 12

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        method: str = "",
        url: str = "",
        status: int = 0,
        codes: tuple[str, ...] = (),
        temporary: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.method = method
        self.url = url
        self.status = status
        self.codes = codes
        self.temporary = temporary

    @property
    def refuses_sparse(self) -> bool:
        """Whether this is how registries answer to an index whose manifests are not all there."""
        said = {"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN"} & {
            *self.codes
        }
        return self.method == "PUT" and 400 <= self.status < 500 and bool(said)


class Unauthorized(RegistryError):
    """401 or 403 after the token flow had its chance."""

    exit_code = 11


class Unreachable(RegistryError):
    """No answer: name resolution, connection, TLS, time-out, or a connection lost on the way."""

    exit_code = 12


class IntegrityError(OciError):
    """Bytes are not those that were promised, or nobody who should has promised anything of them.

    Attributes:
        expected: the digest or size that was promised.
        actual: what the bytes have, or "" where they ended the check early.
    """

    exit_code = 13

    def __init__(self, message: str, *, expected: str = "", actual: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.expected = expected
        self.actual = actual


class InvalidContent(OciError):
    """A document or an archive that its specification forbids."""

    exit_code = 14


class UnsafeContent(InvalidContent):
    """Content that would leave its root or that exceeds a limit."""

    exit_code = 15


class Unsupported(OciError):
    """A media type, algorithm or feature that ocitool, or this kernel, does not have."""

    exit_code = 16


class Conflict(OciError):
    """Something exists already, is locked, or is in a state that forbids the operation."""

    exit_code = 17


class RunError(OciError):
    """A container could not be run.

    `exit_code` is 125, or what a container engine's users expect: 126 for a program that cannot be
    executed and 127 for one that is not there.
    """

    exit_code = 125

    def __init__(self, message: str, *, hint: str = "", exit_code: int = 125) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
