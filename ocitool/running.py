"""From an image straight to a process: unpack it once, adjust the configuration, run, clean up."""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ocitool import strictjson
from ocitool.content import read_config, read_manifest
from ocitool.errors import Conflict, InvalidContent, InvalidReference, OciError, Unsupported
from ocitool.model import Manifest
from ocitool.prepared import overlay, prepared, process_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ocitool.content import Source
    from ocitool.model import Descriptor, ImageConfig
    from ocitool.run.options import RunOptions


def is_bundle(path: Path) -> bool:
    """Whether a directory is a bundle and not an image layout."""
    return (path / "config.json").is_file() and not (path / "oci-layout").exists()


def run_image(  # noqa: PLR0913 - where, what, how, and who is told
    source: Source,
    image: Descriptor,
    containers: Path,
    place: Path,
    options: RunOptions,
    *,
    user: str = "",
    name: str = "",
    keep: bool = False,
    on_warning: Callable[[str], None] | None = None,
) -> int:
    """Run an image's program in a new container, in the foreground.

    Args:
        source: where the image is.
        image: its manifest.
        containers: where the container's directory is made.
        place: where images are kept unpacked for the next time (see `ocitool.prepared`).
        options: what to change of the image's configuration.
        user: whom to run as, by name or number, in place of the image's user.
        name: the container's ID; random where empty.
        keep: leave the container's directory, a bundle, when the program has ended.
        on_warning: is told what the host could not give.

    Returns:
        The program's own exit status, or 128 and the number of the signal that ended it.

    Raises:
        RunError: the container could not be started; see `run_bundle`.
        OciError: the image could not be unpacked.
    """
    from ocitool.run import run_bundle
    from ocitool.run.overlay import refused
    from ocitool.unpack import UnpackOptions, unpack

    bundle, container_id = _container(containers, name)
    config = _image_config(source, image)
    if config is not None:
        options = replace(
            options,
            image_entrypoint=tuple(config.config.get("Entrypoint", ())),
            image_cmd=tuple(config.config.get("Cmd", ())),
        )
    if config is not None and not keep:
        with prepared(source, image, place) as whole:
            try:
                return _run_on(whole, bundle, config, replace(options, user=None), user, on_warning)
            except OciError as error:
                if not refused(error):
                    raise
                if on_warning:
                    on_warning(f"{error}; the image is unpacked for this container alone")
    # Nothing of this has to outlive a power cut.
    unpack(source, image, bundle, options=UnpackOptions(user=user, sync=False))
    with _removed(bundle, keep=keep):
        _write(_read(bundle), bundle, options)
        return run_bundle(str(bundle), container_id=container_id, on_warning=on_warning)


def _run_on(
    whole: Path,
    container: Path,
    config: ImageConfig,
    options: RunOptions,
    user: str,
    on_warning: Callable[[str], None] | None,
) -> int:
    """Run an image that is unpacked already, and leave it as it is."""
    from ocitool.run import run_bundle

    with _made(container):
        layers = overlay(whole, container)
        document = _read(whole)
        if user:
            document["process"] = process_of(whole, config, user)
        _write(document, container, options)
        return run_bundle(str(container), container_id=container.name, overlay=layers, on_warning=on_warning)


def _container(containers: Path, name: str) -> tuple[Path, str]:
    """The directory of a new container and its ID, which has to be one before it becomes part of a path.

    Raises:
        InvalidReference: the name is no ID.
    """
    from ocitool.run.state import check_id

    container_id = name or f"ocitool-{secrets.token_hex(6)}"
    try:
        check_id(container_id)
    except InvalidContent as error:
        raise InvalidReference(str(error), hint=error.hint) from error
    return containers / container_id, container_id


def _image_config(source: Source, image: Descriptor) -> ImageConfig | None:
    manifest = read_manifest(source, image)
    return read_config(source, manifest) if isinstance(manifest, Manifest) else None


def run_directory(
    bundle: Path,
    containers: Path,
    options: RunOptions,
    *,
    name: str = "",
    on_warning: Callable[[str], None] | None = None,
) -> int:
    """Run a bundle that something else made, with changes, and leave it as it was.

    Raises:
        RunError, OciError: see `run_bundle`.
    """
    from ocitool.run import run_bundle

    changed, container_id = _container(containers, name)
    with _made(changed):
        config = _read(bundle)
        _make_absolute(config, bundle.absolute())
        _write(config, changed, options)
        return run_bundle(str(changed), container_id=container_id, on_warning=on_warning)


def _read(bundle: Path) -> dict[str, Any]:
    return strictjson.load_object((bundle / "config.json").read_bytes(), f"{bundle}/config.json")


def _write(config: dict[str, Any], directory: Path, options: RunOptions) -> None:
    """Write a configuration with changes into a container's directory."""
    from ocitool.run.options import apply

    changed = apply(config, options)
    _check_mapped(changed)
    (directory / "config.json").write_text(json.dumps(changed, indent=2))


def _check_mapped(config: dict[str, Any]) -> None:
    """Refuse a user who does not exist in the user namespace; the kernel only says "invalid"."""
    user, linux = config["process"].get("user") or {}, config.get("linux") or {}
    for kind, what in (("uid", "user"), ("gid", "group")):
        ranges = linux.get(f"{kind}Mappings") or ()
        number = user.get(kind, 0)
        if ranges and not any(0 <= number - part["containerID"] < part["size"] for part in ranges):
            raise Unsupported(
                f"the program can't run as the {what} {number}, who is not mapped into the user namespace",
                hint="add --user 0, or have ids delegated to you in /etc/subuid and /etc/subgid",
            )


def _make_absolute(config: dict[str, Any], bundle: Path) -> None:
    # config.md, root, path: "On POSIX platforms, `path` is either an absolute path or a relative path to the
    # bundle."
    root = config.get("root")
    if not isinstance(root, dict) or not isinstance(root.get("path"), str):
        raise InvalidContent(f"{bundle}/config.json names no root file system")
    root["path"] = str(bundle / root["path"])
    for mount in config.get("mounts") or []:
        # config.md, mounts, source: "Path values for bind mounts are either absolute or relative to the
        # bundle."
        if {"bind", "rbind"} & set(mount.get("options") or []) and isinstance(mount.get("source"), str):
            mount["source"] = str(bundle / mount["source"])


@contextmanager
def _made(directory: Path) -> Iterator[None]:
    """A container's directory, which ends with it."""
    try:
        directory.mkdir(mode=0o700, parents=True)
    except FileExistsError as error:
        raise Conflict(f"{directory} exists", hint="choose another name, or remove it first") from error
    except OSError as error:
        raise OciError(f"{directory} can't be made: {error.strerror}") from error
    with _removed(directory, keep=False):
        yield


@contextmanager
def _removed(directory: Path, *, keep: bool) -> Iterator[None]:
    try:
        yield
    finally:
        if not keep:
            from ocitool.unpack.removal import discard

            discard(directory)


def containers_of(store: Path) -> Path:
    """Where the containers of a local store are made: beside it, for they may share a file system."""
    return store.absolute().parent / "containers"
