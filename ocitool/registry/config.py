"""What the user configured: on the command line, in registries.conf, and in certs.d."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from ocitool import __version__, limits, places
from ocitool.errors import NotFound, OciError
from ocitool.reference import is_digest
from ocitool.registry.sockets import Pace
from ocitool.registry.tls import Trust

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PullFrom: TypeAlias = Literal["all", "digest-only", "tag-only"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """How to talk to registries.

    Attributes:
        username: with `password`, what the user typed: for every registry that the client is asked to open.
        registry_token: a ready bearer token, sent as it is.
        no_credentials: ask nobody and no file for credentials.
        authfile: the only file to look for credentials in.
        tls_verify: whether certificates have to be valid. Without that, http is tried as well, though never
            with credentials.
        plain_http: speak http, whatever the registry.
        ca_file: certificates to believe in addition to the system's.
        cert_file: a client certificate; its key is in `key_file`, or in the same file.
        cert_dir: the only directory to look for `*.crt`, `*.cert` and `*.key` in.
        registries_conf: the only registries.conf to read.
        mount_from: repositories of the destination's registry that may have blobs already.
        retries: how often a request is sent at most.
        retry_delay: seconds before the second try; doubled each time.
        longest_wait: seconds; a registry that asks for a longer wait makes the request fail instead.
        pace: how slow a peer may be.
        chunk_size: bytes per chunk of an upload; 0 sends a blob whole, and in chunks only once that failed.
        ranges: connections for one large blob where a single one is slow.
        manifest_bytes: the largest manifest that is read.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    no_credentials: bool = False
    authfile: Path | None = None
    tls_verify: bool = True
    plain_http: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    cert_dir: Path | None = None
    registries_conf: Path | None = None
    mount_from: tuple[str, ...] = ()
    retries: int = 5
    retry_delay: float = 0.5
    longest_wait: float = 60.0
    pace: Pace = field(default_factory=Pace)
    chunk_size: int = 0
    ranges: int = 5
    manifest_bytes: int = limits.MANIFEST_BYTES
    user_agent: str = f"ocitool/{__version__}"


@dataclass(frozen=True, slots=True)
class Place:
    """One place where a repository may be read: a registry and a repository there."""

    registry: str
    repository: str
    insecure: bool = False
    pull_from: PullFrom = "all"

    def serves(self, ref: str) -> bool:
        """Whether it may be asked for a tag or a digest."""
        return self.pull_from == "all" or (self.pull_from == "digest-only") == is_digest(ref)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a repository is: itself, and its mirrors in the order to try them in."""

    primary: Place
    mirrors: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    """One `[[registry]]` of registries.conf."""

    prefix: str
    location: str
    insecure: bool
    blocked: bool
    mirrors: tuple[tuple[str, bool, PullFrom], ...]
    source: Path

    def rest_of(self, name: str) -> str | None:
        """What follows the prefix in a name, or None where the name does not have it."""
        if self.prefix.startswith("*."):
            host, slash, path = name.partition("/")
            return f"{slash}{path}" if host.partition(":")[0].endswith(self.prefix[1:]) else None
        rest = name.removeprefix(self.prefix)
        # "the prefix must end at a boundary": example.com/foo is no prefix of example.com/foobar.
        return rest if name.startswith(self.prefix) and rest[:1] in {"", "/", ":"} else None


@dataclass(frozen=True, slots=True)
class RegistriesConf:
    """The `[[registry]]` tables of registries.conf, version 2."""

    entries: tuple[_Entry, ...] = ()

    @classmethod
    def load(cls, environ: Mapping[str, str], only: Path | None = None) -> RegistriesConf:
        """Read registries.conf and its drop-ins, as podman and skopeo find them.

        Raises:
            OciError: a file is not what it should be.
        """
        entries: dict[str, _Entry] = {}
        for file in [only] if only else _conf_files(environ):
            # A later table of the same prefix replaces the earlier one.
            entries.update({entry.prefix: entry for entry in _entries(file)})
        return cls(tuple(entries.values()))

    def places(self, registry: str, repository: str) -> Places:
        """Where a repository is read.

        Raises:
            OciError: the configuration blocks it.
        """
        name = f"{registry}/{repository}"
        matching = [entry for entry in self.entries if entry.rest_of(name) is not None]
        if not matching:
            return Places(Place(registry, repository))
        entry = max(matching, key=lambda entry: len(entry.prefix))
        if entry.blocked:
            raise OciError(f"{name} is blocked by {entry.source}")
        rest = entry.rest_of(name) or ""
        located = name if not entry.location else f"{entry.location}{rest}"
        return Places(
            replace(_place(located, entry), insecure=entry.insecure),
            tuple(
                replace(_place(f"{location}{rest}", entry), insecure=insecure, pull_from=pull_from)
                for location, insecure, pull_from in entry.mirrors
            ),
        )


def _place(name: str, entry: _Entry) -> Place:
    registry, _, repository = name.partition("/")
    if not repository:
        raise OciError(f"{entry.source}: {name} is not host/repository")
    return Place(registry, repository)


def _conf_files(environ: Mapping[str, str]) -> list[Path]:
    named = environ.get("CONTAINERS_REGISTRIES_CONF") or environ.get("REGISTRIES_CONFIG_PATH")
    if named:
        return [Path(named)]
    users = [home / "containers" for home in config_homes(environ)]
    system = Path("/etc/containers")
    own = [file for user in users if (file := user / "registries.conf").is_file()]
    # The system's drop-ins belong to the system's file.
    files = own or [system / "registries.conf", *_drop_ins(system)]
    return [file for file in [*files, *chain.from_iterable(map(_drop_ins, users))] if file.is_file()]


def _drop_ins(directory: Path) -> Iterable[Path]:
    return sorted((directory / "registries.conf.d").glob("*.conf"))


def config_homes(environ: Mapping[str, str]) -> list[Path]:
    """Where a user's configuration is (XDG Base Directory Specification); nowhere for one without a home."""
    if named := environ.get("XDG_CONFIG_HOME"):
        return [Path(named)]
    home = places.home(environ)
    return [Path(home, ".config")] if home else []


def _entries(file: Path) -> Iterable[_Entry]:
    import tomllib  # few machines have such a file

    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise OciError(f"{file} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise OciError(f"{file} is not TOML: {error}") from error
    tables = document.get("registry", [])
    if not isinstance(tables, list):
        raise OciError(f"{file}: `registry` is not a list of tables")
    for table in tables:
        location = _text(table, "location", file)
        prefix = _text(table, "prefix", file) or location
        if not prefix:
            raise OciError(f"{file}: a [[registry]] has neither prefix nor location")
        by_digest = _flag(table, "mirror-by-digest-only", file)
        yield _Entry(
            prefix,
            location,
            _flag(table, "insecure", file),
            _flag(table, "blocked", file),
            tuple(
                (
                    _text(mirror, "location", file),
                    _flag(mirror, "insecure", file),
                    "digest-only" if by_digest else _pull_from(mirror, file),
                )
                for mirror in table.get("mirror", [])
            ),
            file,
        )


def _text(table: Any, key: str, file: Path) -> str:
    value = table.get(key, "") if isinstance(table, dict) else None
    if not isinstance(value, str):
        raise OciError(f"{file}: `{key}` is not a string")
    return value.rstrip("/")


def _flag(table: dict[str, Any], key: str, file: Path) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise OciError(f"{file}: `{key}` is neither true nor false")
    return value


def _pull_from(mirror: dict[str, Any], file: Path) -> PullFrom:
    value = _text(mirror, "pull-from-mirror", file) or "all"
    if value not in {"all", "digest-only", "tag-only"}:
        raise OciError(f"{file}: pull-from-mirror is {value!r}, not all, digest-only or tag-only")
    return cast("PullFrom", value)


def trust_for(registry: str, config: ClientConfig, environ: Mapping[str, str], *, insecure: bool) -> Trust:
    """Whom to believe at a registry, and who to be: the command line's files, and those of certs.d.

    Raises:
        NotFound: there is no directory of the name that was given.
        OciError: a client certificate has no key.
    """
    if config.cert_dir and not config.cert_dir.is_dir():
        raise NotFound(f"there is no directory {config.cert_dir} to look for certificates in")
    authorities = [config.ca_file] if config.ca_file else []
    identities = [(config.cert_file, config.key_file or config.cert_file)] if config.cert_file else []
    directory = config.cert_dir or _certs_d(registry, environ)
    if directory:
        authorities += sorted(directory.glob("*.crt"))
        for certificate in sorted(directory.glob("*.cert")):
            key = certificate.with_suffix(".key")
            if not key.is_file():
                raise OciError(f"{certificate} has no key beside it", hint=f"expected {key}")
            identities.append((certificate, key))
    return Trust(
        verify=config.tls_verify and not insecure,
        authorities=tuple(authorities),
        identities=tuple(identities),
    )


def _certs_d(registry: str, environ: Mapping[str, str]) -> Path | None:
    """The first directory that there is for a registry, its name exactly as in the reference."""
    users = [home / "containers" for home in config_homes(environ)]
    parents = [*users, Path("/etc/containers"), Path("/etc/docker")]
    directories = (parent / "certs.d" / registry for parent in parents)
    return next((directory for directory in directories if directory.is_dir()), None)
