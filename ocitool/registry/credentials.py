"""Credentials: where docker and podman keep them, found by the same rules (and nowhere else).

Sources, the first that names a registry wins:

1. what the user typed (`ClientConfig`);
2. `--authfile`, else DOCKER_AUTH_CONFIG (the JSON itself), else REGISTRY_AUTH_FILE;
3. docker's config.json, then podman's auth.json files.

A source that was named is the only one; DOCKER_AUTH_CONFIG alone lets the files speak for other registries.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ocitool import places, strictjson
from ocitool.errors import InvalidContent, NotFound, OciError
from ocitool.reference import DOCKER_HUB
from ocitool.registry import helpers
from ocitool.registry.config import config_homes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

HUB_KEY: Final = "https://index.docker.io/v1/"
"""How docker calls Docker Hub among its credentials."""

_HUB_NAMES: Final = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
TOKEN_USER: Final = "<token>"  # noqa: S105 - the name that marks a token as one
_MAX_FILE: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """What proves who we are; all empty for nobody.

    Attributes:
        username: with `password`, for Basic and for the token service.
        identity_token: an OAuth2 refresh token, for the token service alone.
        registry_token: a bearer token that is sent as it is.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        for value in (self.username, self.password, self.identity_token, self.registry_token):
            # They end up in header fields, where a line break would start another field.
            if any(char < " " or char == "\x7f" for char in value):
                raise OciError(
                    "a credential holds a control character", hint="is there a line break at its end?"
                )
        if ":" in self.username:
            raise OciError("a user name can't hold a colon")

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)

    @property
    def basic(self) -> str:
        """The value of an Authorization field, or "" where there is no password."""
        if not self.username:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


ANONYMOUS: Final = Credentials()


@dataclass(frozen=True, slots=True)
class AuthFile:
    """One file of credentials, docker's or podman's."""

    path: Path
    fields: Mapping[str, Any]
    uses_store: bool = True
    """Whether `credsStore` counts; podman ignores it in its own files."""

    @classmethod
    def read(cls, path: Path, *, uses_store: bool = True) -> AuthFile:
        """Read a file; one that is missing is empty.

        Raises:
            OciError: it can't be read or is not JSON.
        """
        try:
            with path.open("rb") as file:
                raw = file.read(_MAX_FILE)
        except FileNotFoundError:
            return cls(path, {}, uses_store)
        except OSError as error:
            raise OciError(f"{path} can't be read: {error.strerror}") from error
        fields = strictjson.load_object(raw, str(path))
        # ~/.dockercfg is the map alone.
        return cls(path, {"auths": fields} if path.name == ".dockercfg" else fields, uses_store)

    def find(self, registry: str, repository: str, environ: Mapping[str, str]) -> Credentials | None:
        """What the file, or a helper that it names, has for a repository; None for nothing."""
        helper = self.helper_for(registry)
        if helper:
            return _from_helper(helper, registry, environ)
        return _entry(self.auths, registry, repository, str(self.path))

    def helper_for(self, registry: str) -> str:
        """The credential helper that keeps a registry's credentials, or "" for the file itself."""
        chosen = self.fields.get("credHelpers")
        for key in _keys(registry, ""):
            if isinstance(chosen, dict) and isinstance(name := chosen.get(key), str):
                return name
        store = self.fields.get("credsStore") if self.uses_store else ""
        return store if isinstance(store, str) else ""

    @property
    def auths(self) -> Mapping[str, Any]:
        """The entries of the file itself."""
        auths = self.fields.get("auths")
        return auths if isinstance(auths, dict) else {}


def _keys(registry: str, repository: str) -> Iterator[str]:
    """The keys of a repository, the narrowest first: host/ns/repo, host/ns, host, and Hub's other names."""
    names = [registry, *(("index.docker.io", "registry-1.docker.io") if registry == DOCKER_HUB else ())]
    parts = repository.split("/") if repository else []
    for n in range(len(parts), 0, -1):
        yield from (f"{name}/{'/'.join(parts[:n])}" for name in names)
    if registry == DOCKER_HUB:
        yield HUB_KEY
    yield from names


def _entry(auths: Mapping[str, Any], registry: str, repository: str, source: str) -> Credentials | None:
    for key in _keys(registry, repository):
        if found := _decoded(auths.get(key), f"{key} in {source}"):
            return found
    # docker writes some hosts as URLs.
    for key, value in auths.items():
        if _host_of(key) == _canonical(registry) and (found := _decoded(value, f"{key} in {source}")):
            return found
    return None


def _canonical(host: str) -> str:
    return DOCKER_HUB if host in _HUB_NAMES else host


def _host_of(key: str) -> str:
    """The host that a key in URL form, or with a path that is no namespace, means."""
    bare = key.removeprefix("https://").removeprefix("http://")
    host, _, path = bare.partition("/")
    # A namespaced key is for that namespace alone; only docker's API paths may follow a host here.
    return _canonical(host) if path.strip("/") in {"", "v1", "v2"} else ""


def _decoded(value: Any, what: str) -> Credentials | None:
    """One entry of `auths`; an empty one only marks that a helper has the credentials."""
    if not isinstance(value, dict):
        return None
    texts = {key: text for key, text in value.items() if isinstance(text, str) and text}
    username, password = texts.get("username", ""), texts.get("password", "")
    if auth := texts.get("auth"):
        try:
            decoded = base64.b64decode(auth + "=" * (-len(auth) % 4), validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise InvalidContent(f"the auth of {what} is not base64") from error
        username, colon, password = decoded.partition(":")
        password = password.strip("\0")
        if not colon or not username:
            raise InvalidContent(f"the auth of {what} is not user:password")
    found = Credentials(username, password, texts.get("identitytoken", ""), texts.get("registrytoken", ""))
    return found or None


def _from_helper(name: str, registry: str, environ: Mapping[str, str]) -> Credentials:
    # docker and podman call Hub by different names.
    for key in (HUB_KEY, DOCKER_HUB) if registry == DOCKER_HUB else (registry,):
        found = helpers.get(name, key, environ)
        if found is not None:
            username, secret = found
            if username == TOKEN_USER:
                return Credentials(identity_token=secret)
            return Credentials(username, secret)
    return ANONYMOUS


def auth_files(environ: Mapping[str, str], only: Path | None = None) -> Iterable[AuthFile]:
    """The files to look in, in order.

    Raises (while iterating):
        NotFound: the only one is not there.
        OciError: one of them can't be read.
    """
    if only:
        if not only.exists():
            raise NotFound(f"there is no file {only} to look for credentials in")
        yield AuthFile.read(only)
        return
    if named := environ.get("REGISTRY_AUTH_FILE"):
        yield AuthFile.read(Path(named))
        return
    if docker := _docker_config(environ):
        yield AuthFile.read(docker)
    for path in _podman_files(environ):
        yield AuthFile.read(path, uses_store=False)
    if home := places.home(environ):
        yield AuthFile.read(Path(home, ".dockercfg"))


def _docker_config(environ: Mapping[str, str]) -> Path | None:
    """Where docker keeps its configuration; DOCKER_CONFIG names the directory. None without a home."""
    if named := environ.get("DOCKER_CONFIG"):
        return Path(named, "config.json")
    home = places.home(environ)
    return Path(home, ".docker", "config.json") if home else None


def _podman_files(environ: Mapping[str, str]) -> Iterator[Path]:
    runtime = environ.get("XDG_RUNTIME_DIR")
    yield (Path(runtime) if runtime else Path(f"/run/containers/{os.getuid()}")) / (
        "containers/auth.json" if runtime else "auth.json"
    )
    yield from (home / "containers" / "auth.json" for home in config_homes(environ))


def find(
    registry: str, repository: str, environ: Mapping[str, str], authfile: Path | None = None
) -> Credentials:
    """The credentials for a repository, or `ANONYMOUS`.

    Raises:
        OciError: a file can't be read, or a helper fails.
    """
    if authfile is None and (inline := environ.get("DOCKER_AUTH_CONFIG")):
        auths = strictjson.load_object(inline.encode(), "DOCKER_AUTH_CONFIG").get("auths")
        if isinstance(auths, dict) and (found := _entry(auths, registry, repository, "DOCKER_AUTH_CONFIG")):
            return found
    for file in auth_files(environ, authfile):
        if found := file.find(registry, repository, environ):
            return found
    return ANONYMOUS


def login(
    registry: str,
    username: str,
    secret: str,
    *,
    environ: Mapping[str, str] | None = None,
    authfile: Path | None = None,
) -> str:
    """Keep credentials where docker, podman and ocitool find them.

    The credentials have been checked by then (`Client.check`).

    Returns:
        Where they are: the path of a file, or "the credential helper …".

    Raises:
        OciError: the file can't be read or written, or the helper fails.
    """
    environ = os.environ if environ is None else environ
    Credentials(username, secret)  # refuses what can't be sent
    file = AuthFile.read(_writable(environ, authfile))
    key = HUB_KEY if registry in _HUB_NAMES else registry
    helper = file.helper_for(_canonical(registry))
    auths = dict(file.auths)
    if helper:
        helpers.store(helper, key, username, secret, environ)
        auths[key] = {}  # as docker marks that the helper has it
    elif username == TOKEN_USER:
        auths[key] = {"identitytoken": secret}
    else:
        auths[key] = {"auth": base64.b64encode(f"{username}:{secret}".encode()).decode()}
    _write(file.path, {**file.fields, "auths": auths})
    return f"the credential helper {helper}" if helper else str(file.path)


def logout(registry: str, *, environ: Mapping[str, str] | None = None, authfile: Path | None = None) -> str:
    """Forget credentials.

    Returns:
        Where they were, as `login` says it.

    Raises:
        NotFound: there are none where `login` would have kept them.
        OciError: the file can't be read or written, or the helper fails.
    """
    environ = os.environ if environ is None else environ
    file = AuthFile.read(_writable(environ, authfile))
    keys = [HUB_KEY, *sorted(_HUB_NAMES)] if registry in _HUB_NAMES else [registry]
    helper = file.helper_for(_canonical(registry))
    if helper:
        helpers.erase(helper, keys[0], environ)
    elif not any(key in file.auths for key in keys):
        raise NotFound(f"{file.path} has no credentials for {registry}")
    if any(key in file.auths for key in keys):
        auths = {key: value for key, value in file.auths.items() if key not in keys}
        _write(file.path, {**file.fields, "auths": auths})
    return f"the credential helper {helper}" if helper else str(file.path)


def _writable(environ: Mapping[str, str], authfile: Path | None) -> Path:
    named = environ.get("REGISTRY_AUTH_FILE")
    found = authfile or (Path(named) if named else _docker_config(environ))
    if found is None:
        raise OciError(
            "this user has no home directory, or may not enter it", hint="name a file with --authfile"
        )
    return found


def _write(path: Path, fields: Mapping[str, Any]) -> None:
    """Replace a file in one step; a new one is readable by its owner alone."""
    import json
    import tempfile

    path = path.resolve()  # a link stays one
    text = json.dumps(fields, indent="\t", ensure_ascii=False) + "\n"
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".ocitool-")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            if path.exists():
                before = path.stat()
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
                with suppress(PermissionError):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise OciError(f"{path} can't be written: {error.strerror}") from error
