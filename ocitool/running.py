"""From an image straight to a process: unpack, adjust the configuration, run, clean up."""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ocitool import strictjson
from ocitool.content import read_config, read_manifest
from ocitool.errors import InvalidContent
from ocitool.model import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ocitool.content import Source
    from ocitool.model import Descriptor
    from ocitool.run.options import RunOptions


def is_bundle(path: Path) -> bool:
    """Whether a directory is a bundle and not an image layout."""
    return (path / "config.json").is_file() and not (path / "oci-layout").exists()


def run_image(  # noqa: PLR0913 - where, what, how, and who is told
    source: Source,
    image: Descriptor,
    containers: Path,
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
    from ocitool.unpack import UnpackOptions, unpack

    container_id = name or f"ocitool-{secrets.token_hex(6)}"
    bundle = containers / container_id
    # Nothing of this has to outlive a power cut.
    unpack(source, image, bundle, options=UnpackOptions(user=user, sync=False))
    with _removed(bundle, keep=keep):
        _adjust(bundle, bundle, _with_program(options, source, image))
        return run_bundle(str(bundle), container_id=container_id, on_warning=on_warning)


def _with_program(options: RunOptions, source: Source, image: Descriptor) -> RunOptions:
    """Options that know the image's own program, so that a command can be added to it."""
    manifest = read_manifest(source, image)
    if not isinstance(manifest, Manifest):
        return options
    config = read_config(source, manifest).config
    return replace(
        options,
        image_entrypoint=tuple(config.get("Entrypoint", ())),
        image_cmd=tuple(config.get("Cmd", ())),
    )


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

    container_id = name or f"ocitool-{secrets.token_hex(6)}"
    changed = containers / container_id
    changed.mkdir(mode=0o700, parents=True)
    with _removed(changed, keep=False):
        _adjust(bundle, changed, options)
        return run_bundle(str(changed), container_id=container_id, on_warning=on_warning)


def _adjust(bundle: Path, target: Path, options: RunOptions) -> None:
    """Write a bundle's configuration with changes into a directory, paths made absolute if it is another."""
    from ocitool.run.options import apply

    config = strictjson.load_object((bundle / "config.json").read_bytes(), f"{bundle}/config.json")
    if target != bundle:
        _make_absolute(config, bundle.absolute())
    (target / "config.json").write_text(json.dumps(apply(config, options), indent=2))


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
