"""From an image straight to a process: unpack it once, adjust the configuration, run, clean up."""

from __future__ import annotations

import os

from ocitool import containers, hostfiles
from ocitool.errors import InvalidContent, InvalidReference, OciError, Unsupported
from ocitool.prepared import groups_of, is_stacked, overlay, prepared, process_of, read, stack_of
from ocitool.remembered import Image
from ocitool.run import jsonfast
from ocitool.run.options import apply
from ocitool.run.overlay import refused

# What only an image that is not ready yet needs is loaded by the functions that make it so.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike
    from typing import Any

    from ocitool.content import Source
    from ocitool.launch import Launch
    from ocitool.model import Descriptor, ImageConfig
    from ocitool.prepared import Prepared
    from ocitool.run import Overlay
    from ocitool.run.options import RunOptions

_ROOTFS = "rootfs"


def is_bundle(path: str) -> bool:
    """Whether a directory is a bundle and not an image layout."""
    return os.path.isfile(f"{path}/config.json") and not os.path.exists(f"{path}/oci-layout")


def run_image(  # noqa: PLR0913 - one keyword for each choice
    source: Source,
    image: Descriptor,
    unpacked: str,
    options: RunOptions,
    launch: Launch,
    *,
    user: str = "",
    keep: bool = False,
    on_known: Callable[[Image], None] = lambda _: None,
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
        on_known: is told what the image's documents say, before the container starts.

    Returns:
        The program's own exit status, or 128 and the number of the signal that ended it.

    Raises:
        RunError: the container could not be started; see `ocitool.run.run_bundle`.
        OciError: the image could not be unpacked.
    """
    container = launch.directory()
    containers.collect(launch.place)
    config = _image_config(source, image)
    if config is not None:
        known = _known(image, config)
        on_known(known)
        if not keep and launch.mounts_layers():
            with prepared(source, image, unpacked) as ready:
                try:
                    process = process_of(ready.bundle, config, user) if user else None
                    chosen = _in_groups(options, ready.bundle)
                    return run_ready(ready, known, chosen, launch, container, process)
                except OciError as error:
                    if not refused(error):
                        raise
                    if launch.on_warning:
                        launch.on_warning(f"{error}; the image is unpacked for this container alone")
        options = _completed(options, known, launch)
    return _run_unpacked(source, image, container, options, launch, user=user, keep=keep)


def run_ready(
    ready: Prepared,
    image: Image,
    options: RunOptions,
    launch: Launch,
    container: str,
    process: dict[str, Any] | None = None,
) -> int:
    """Run an image that is unpacked already, and leave it as it is.

    Args:
        ready: the image's bundle.
        image: what it was made of.
        options: what to change of the image's configuration.
        launch: where and by what it is started.
        container: the new container's directory (see `Launch.directory`).
        process: takes the place of the bundle's own one, for another user.

    Raises:
        RunError, OciError: see `run_image`.
    """
    options = _completed(options, image, launch)
    with containers.made(container):
        layers = overlay(ready.stack, container)
        document = read(f"{ready.bundle}/config.json")
        if process is not None:
            document["process"] = process
        document = _with_host_files(document, ready.stack.lowers, container, launch)
        document = _changed(document, options, container)
        _write(document, container)
        return _start(launch, document["process"], container, container, layers)


def _run_unpacked(
    source: Source,
    image: Descriptor,
    container: str,
    options: RunOptions,
    launch: Launch,
    *,
    user: str,
    keep: bool,
) -> int:
    """Run an image in a bundle of the container's own."""
    from pathlib import Path

    from ocitool.unpack import UnpackOptions, unpack
    from ocitool.unpack.bundle import dumps

    # Nothing of this has to outlive a power cut.
    unpacking = UnpackOptions(user=user, sync=False)
    if keep:
        unpack(source, image, Path(container), options=unpacking)
        options = _in_groups(options, container)
        document = _of_bundle(container, container, options, launch)
        Path(container, "config.json").write_bytes(dumps(document))
        return _start(launch, document["process"], container, container)
    with containers.made(container):
        bundle = f"{container}/bundle"
        unpack(source, image, Path(bundle), options=unpacking)
        options = _in_groups(options, bundle)
        document = _of_bundle(bundle, container, options, launch)
        _write(document, bundle)
        return _start(launch, document["process"], bundle, container)


def _start(
    launch: Launch, process: dict[str, Any], bundle: str, container: str, layers: Overlay | None = None
) -> int:
    """Start a container, whose program may open its output anew wherever ours goes."""
    from ocitool.run.relay import outputs

    container_id = os.path.basename(container)
    pipes = None if process.get("terminal") else outputs((process.get("user") or {}).get("uid", 0))
    if pipes is None:
        return launch.start(bundle, container_id, layers)
    with pipes:
        return launch.start(bundle, container_id, layers)


def _of_bundle(bundle: str, container: str, options: RunOptions, launch: Launch) -> dict[str, Any]:
    """The configuration of a bundle of its own, for a container."""
    document = read(f"{bundle}/config.json")
    document = _with_host_files(document, [f"{bundle}/{_ROOTFS}"], container, launch)
    return _changed(document, options, container)


def _completed(options: RunOptions, image: Image, launch: Launch) -> RunOptions:
    """The options with what the image's own documents say to them.

    Raises:
        InvalidReference: neither they nor the options say what to run. In a bundle a shell stands there, and
            it ends at once and well where it has no input.
    """
    if not (options.args or options.entrypoint or image.entrypoint or image.command):
        raise InvalidReference("the image names no program", hint="name one after the image")
    launch.platform = image.platform
    return options.but(
        image_entrypoint=image.entrypoint,
        image_cmd=image.command,
        image_volumes=image.volumes,
        # A setuid program in a changed root alone would be kept by nothing.
        as_engines=launch.isolation != "chroot",
    )


def _in_groups(options: RunOptions, bundle: str) -> RunOptions:
    """The options with the numbers of the groups that they name."""
    if not options.groups:
        return options
    return options.but(additional_gids=groups_of(bundle, options.groups))


def _known(image: Descriptor, config: ImageConfig) -> Image:
    """What of an image's documents is worth to be remembered."""
    entrypoint, command, volumes = (
        tuple(config.config.get(key, ())) for key in ("Entrypoint", "Cmd", "Volumes")
    )
    return Image(str(image.digest), str(config.platform), entrypoint, command, volumes)


def _image_config(source: Source, image: Descriptor) -> ImageConfig | None:
    from ocitool.content import read_config, read_manifest
    from ocitool.model import Manifest

    manifest = read_manifest(source, image)
    return read_config(source, manifest) if isinstance(manifest, Manifest) else None


def run_directory(bundle: str | PathLike[str], options: RunOptions, launch: Launch) -> int:
    """Run a bundle that something else made, with changes, and leave it as it was.

    Raises:
        RunError, OciError: see `ocitool.run.run_bundle`.
    """
    changed = launch.directory()
    containers.collect(launch.place)
    with containers.made(changed):
        config = read(f"{bundle}/config.json")
        _make_absolute(config, os.path.join(os.getcwd(), bundle))
        layers = None
        if is_stacked(bundle):
            if not launch.mounts_layers():
                raise Unsupported(f"{bundle} has its root file system in layers, which can't be mounted here")
            layers = overlay(stack_of(bundle), changed)
            config["root"]["path"] = layers.target
        config = _changed(config, options, changed)
        _write(config, changed)
        return _start(launch, config["process"], changed, changed, layers)


def _with_host_files(
    config: dict[str, Any], trees: Sequence[str], container: str, launch: Launch
) -> dict[str, Any]:
    """A configuration whose container knows its name, and finds hostname, hosts and resolv.conf in `/etc`."""
    network = "host" if launch.isolation == "chroot" else launch.network
    hostname = launch.hostname or config["hostname"]
    added = hostfiles.mounts(container, trees, hostname, network, launch.names)
    process = config["process"]
    if not any(item.startswith("HOSTNAME=") for item in process["env"]):
        process = {**process, "env": [f"HOSTNAME={hostname}", *process["env"]]}
    return {**config, "process": process, "mounts": [*config["mounts"], *added]}


def _changed(config: dict[str, Any], options: RunOptions, container: str) -> dict[str, Any]:
    """A configuration with the changes that are asked for."""
    changed = apply(config, options.but(container_id=os.path.basename(container)))
    _check_mapped(changed)
    return changed


def _write(config: dict[str, Any], directory: str) -> None:
    """Write a configuration for the runtime alone."""
    with open(f"{directory}/config.json", "wb") as file:
        file.write(jsonfast.dumps(config).encode("ascii"))


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


def _make_absolute(config: dict[str, Any], bundle: str) -> None:
    # config.md, root, path: "On POSIX platforms, `path` is either an absolute path or a relative path to the
    # bundle."
    root = config.get("root")
    if not isinstance(root, dict) or not isinstance(root.get("path"), str):
        raise InvalidContent(f"{bundle}/config.json names no root file system")
    root["path"] = os.path.join(bundle, root["path"])
    for mount in config.get("mounts") or []:
        # config.md, mounts, source: "Path values for bind mounts are either absolute or relative to the
        # bundle."
        if {"bind", "rbind"} & set(mount.get("options") or []) and isinstance(mount.get("source"), str):
            mount["source"] = os.path.join(bundle, mount["source"])
