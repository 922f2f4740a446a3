"""From an image straight to a process: unpack it once, adjust the configuration, run, clean up."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ocitool import containers, hostfiles, strictjson
from ocitool.content import read_config, read_manifest
from ocitool.errors import InvalidContent, InvalidReference, OciError, RunError, Unsupported
from ocitool.model import Manifest
from ocitool.platforms import host
from ocitool.prepared import Prepared, is_stacked, overlay, prepared, process_of, stack_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ocitool.content import Source
    from ocitool.model import Descriptor, ImageConfig
    from ocitool.platforms import Platform
    from ocitool.run import Overlay
    from ocitool.run.options import RunOptions

_ROOTFS: Final = "rootfs"
_CHROOT: Final = (
    "--isolation chroot: the program is NOT isolated. It sees the processes, network, host name and kernel"
    " settings of this host; only its files are its own"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Where and by what a container is started.

    Attributes:
        place: where the directories of containers are made.
        name: the container's ID; random where empty.
        runtime: another runtime to hand the bundle to, by its name or path; empty for our own.
        isolation: "full"; "auto", which says what to do where the host can't; or "chroot", a changed root
            directory and nothing else.
        hostname: the container's host name, if another one than by default.
        network: what the container is connected by; "none" for a network of its own without a way out.
        platform: what the image is for, where that is known.
        on_warning: is told what the host could not give.
    """

    place: Path
    name: str = ""
    runtime: str = ""
    isolation: str = "auto"
    hostname: str = ""
    network: str = "none"
    platform: Platform | None = None
    on_warning: Callable[[str], None] | None = None

    def directory(self) -> Path:
        """The directory of the new container; its last part is the ID.

        Raises:
            InvalidReference: the name is no ID.
        """
        from ocitool.run.state import check_id

        container_id = self.name or f"ocitool-{secrets.token_hex(6)}"
        try:
            # It has to be one before it becomes part of a path.
            check_id(container_id)
        except InvalidContent as error:
            raise InvalidReference(str(error), hint=error.hint) from error
        return self.place / container_id

    def start(self, bundle: Path, container_id: str, layers: Overlay | None = None) -> int:
        """Run a bundle; see `ocitool.run.run_bundle`.

        Raises:
            RunError: as there; where the host can't isolate a container, it says what is missing.
        """
        from ocitool.run import run_bundle

        if self.isolation == "chroot" and self.on_warning:
            self.on_warning(_CHROOT)
        try:
            return run_bundle(
                str(bundle),
                container_id=container_id,
                overlay=layers,
                runtime=self.runtime,
                network="" if self.network in ("none", "host") else self.network,
                isolation="chroot" if self.isolation == "chroot" else "",
                on_warning=self.on_warning,
            )
        except RunError as error:
            if self.isolation == "auto" and not self.runtime and error.exit_code == RunError.exit_code:
                raise _explained(error) from error
            if self.platform and error.message.endswith("exec format error"):
                raise _foreign(error, self.platform) from error
            raise

    def mounts_layers(self) -> bool:
        """Whether an image's layers can be mounted, so that nothing has to be unpacked for the container.

        Another runtime mounts none itself, and only root can do it beforehand.
        """
        return self.isolation != "chroot" and (not self.runtime or os.geteuid() == 0)


def _explained(error: RunError) -> RunError:
    """An error of a container that did not start, with what the host lacks, if it lacks anything."""
    from ocitool.run.launch import lacking

    missing = lacking()
    if not missing:
        return error
    root = "--isolation chroot runs the program without any isolation but a root directory of its own"
    return RunError(
        f"this host allows no container: {missing}",
        hint=root if os.geteuid() == 0 else "an administrator can allow it, or run it with sudo",
    )


def _foreign(error: RunError, platform: Platform) -> RunError:
    """The error of a program that is not for this processor, if that is what is wrong with it."""
    if platform.architecture == host().architecture:
        return error
    return RunError(
        f"{error.message}: the image is for {platform}, and this host is {host()}",
        hint="programs of other architectures run where an interpreter is registered with the kernel"
        " (binfmt_misc; the package qemu-user-static does it)",
        exit_code=error.exit_code,
    )


def check_chroot(options: RunOptions) -> None:
    """Refuse what `--isolation chroot` can't give.

    Raises:
        InvalidReference: something of that kind was asked for.
    """
    asked = {
        "--volume": options.volumes,
        "--tmpfs": options.tmpfs,
        "--read-only": options.read_only,
        "--memory": options.memory,
        "--cpus": options.cpus,
        "--pids-limit": options.pids_limit,
        "--hostname": options.hostname,
        "--network": options.network not in (None, "host"),
    }
    given = [name for name, value in asked.items() if value]
    if given:
        raise InvalidReference(
            f"--isolation chroot has no mounts, limits or namespaces: leave out {', '.join(given)}"
        )


def is_bundle(path: Path) -> bool:
    """Whether a directory is a bundle and not an image layout."""
    return (path / "config.json").is_file() and not (path / "oci-layout").exists()


def run_image(
    source: Source,
    image: Descriptor,
    unpacked: Path,
    options: RunOptions,
    launch: Launch,
    *,
    user: str = "",
    keep: bool = False,
) -> int:
    """Run an image's program in a new container, in the foreground.

    Args:
        source: where the image is.
        image: its manifest.
        unpacked: where images are kept unpacked for the next time (see `ocitool.prepared`).
        options: what to change of the image's configuration.
        launch: where and by what it is started.
        user: whom to run as, by name or number, in place of the image's user.
        keep: leave the container's directory, a bundle, when the program has ended.

    Returns:
        The program's own exit status, or 128 and the number of the signal that ended it.

    Raises:
        RunError: the container could not be started; see `ocitool.run.run_bundle`.
        OciError: the image could not be unpacked.
    """
    from ocitool.run.overlay import refused
    from ocitool.unpack import UnpackOptions, unpack

    container = launch.directory()
    containers.collect(launch.place)
    config = _image_config(source, image)
    if config is not None:
        launch = replace(launch, platform=config.platform)
    if config is not None:
        options = replace(
            options,
            image_entrypoint=tuple(config.config.get("Entrypoint", ())),
            image_cmd=tuple(config.config.get("Cmd", ())),
        )
    if config is not None and not keep and launch.mounts_layers():
        with prepared(source, image, unpacked) as ready:
            try:
                return _run_on(ready, container, config, replace(options, user=None), user, launch)
            except OciError as error:
                if not refused(error):
                    raise
                if launch.on_warning:
                    launch.on_warning(f"{error}; the image is unpacked for this container alone")
    # Nothing of this has to outlive a power cut.
    unpacking = UnpackOptions(user=user, sync=False)
    if keep:
        unpack(source, image, container, options=unpacking)
        _write(
            _with_host_files(_read(container), [container / _ROOTFS], container, launch), container, options
        )
        return launch.start(container, container.name)
    with containers.made(container):
        bundle = container / "bundle"
        unpack(source, image, bundle, options=unpacking)
        _write(_with_host_files(_read(bundle), [bundle / _ROOTFS], container, launch), bundle, options)
        return launch.start(bundle, container.name)


def _run_on(
    ready: Prepared, container: Path, config: ImageConfig, options: RunOptions, user: str, launch: Launch
) -> int:
    """Run an image that is unpacked already, and leave it as it is."""
    with containers.made(container):
        layers = overlay(ready.stack, container)
        document = _read(ready.bundle)
        if user:
            document["process"] = process_of(ready.bundle, config, user)
        document = _with_host_files(document, ready.stack.lowers, container, launch)
        _write(document, container, options)
        return launch.start(container, container.name, layers)


def _image_config(source: Source, image: Descriptor) -> ImageConfig | None:
    manifest = read_manifest(source, image)
    return read_config(source, manifest) if isinstance(manifest, Manifest) else None


def run_directory(bundle: Path, options: RunOptions, launch: Launch) -> int:
    """Run a bundle that something else made, with changes, and leave it as it was.

    Raises:
        RunError, OciError: see `ocitool.run.run_bundle`.
    """
    changed = launch.directory()
    containers.collect(launch.place)
    with containers.made(changed):
        config = _read(bundle)
        _make_absolute(config, bundle.absolute())
        layers = None
        if is_stacked(bundle):
            if not launch.mounts_layers():
                raise Unsupported(f"{bundle} has its root file system in layers, which can't be mounted here")
            layers = overlay(stack_of(bundle), changed)
            config["root"]["path"] = layers.target
        _write(config, changed, options)
        return launch.start(changed, changed.name, layers)


def _read(bundle: Path) -> dict[str, Any]:
    return strictjson.load_object((bundle / "config.json").read_bytes(), f"{bundle}/config.json")


def _with_host_files(
    config: dict[str, Any], trees: Sequence[Path], container: Path, launch: Launch
) -> dict[str, Any]:
    """A configuration whose container finds hostname, hosts and resolv.conf in its `/etc`."""
    network = "host" if launch.isolation == "chroot" else launch.network
    hostname = launch.hostname or config["hostname"]
    added = hostfiles.mounts(container, trees, hostname, network)
    return {**config, "mounts": [*config["mounts"], *added]}


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
