"""How much a container may use of disks, as command lines have it."""

from __future__ import annotations

import os
import stat

from ocitool.errors import InvalidReference, RunError

from .limiting import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .options import RunOptions

DEVICES = {
    "blkio_weight_device": "weightDevice",
    "device_read_bps": "throttleReadBpsDevice",
    "device_read_iops": "throttleReadIOPSDevice",
    "device_write_bps": "throttleWriteBpsDevice",
    "device_write_iops": "throttleWriteIOPSDevice",
}
"""What is said of single devices, and what a config.json calls it (config-linux.md, "Block IO")."""
_LEAST_WEIGHT, _MOST_WEIGHT = 10, 1000  # as docker has them


def limit(resources: dict[str, Any], options: RunOptions) -> None:
    """Set what `options` say of disks.

    Raises:
        InvalidReference: one of them is not well-formed. RunError: the host has no such device.
    """
    block: dict[str, Any] = {**(resources.get("blockIO") or {})}
    if options.blkio_weight:
        block["weight"] = _weight(options.blkio_weight, f"--blkio-weight {options.blkio_weight}")
    for name, key in DEVICES.items():
        found = [_of_device(name, text) for text in getattr(options, name)]
        if found:
            block[key] = [*(block.get(key) or ()), *found]
    if block:
        resources["blockIO"] = block


def _weight(number: int, where: str) -> int:
    if not _LEAST_WEIGHT <= number <= _MOST_WEIGHT:
        raise InvalidReference(f"{where}: a weight goes from {_LEAST_WEIGHT} to {_MOST_WEIGHT}")
    return number


def _of_device(name: str, text: str) -> dict[str, int]:
    where = f"--{name.replace('_', '-')} {text}"
    path, _, value = text.rpartition(":")
    if not path.startswith("/dev/"):
        raise InvalidReference(f"{where} is not a device below /dev, a colon and a number")
    number = _rate(value, where) if name.endswith("bps") else _number(value, where)
    try:
        info = os.stat(path)
    except OSError as exc:
        raise RunError(f"{where}: {exc.strerror}") from exc
    if not stat.S_ISBLK(info.st_mode):
        raise RunError(f"{where}: it is no disk")
    value_of = {"rate": number}
    if name == "blkio_weight_device":
        value_of = {"weight": _weight(number, where)}
    return {"major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev), **value_of}


def _rate(text: str, where: str) -> int:
    try:
        return size(text)
    except InvalidReference as exc:
        raise InvalidReference(f"{where}: {exc}") from exc


def _number(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InvalidReference(f"{where}: {text!r} is no number")
    return int(text)
