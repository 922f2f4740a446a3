"""Device rules of cgroup version 2: a program of type CGROUP_DEVICE, written and attached by bpf(2)."""

from __future__ import annotations

import posix

from .cgroup_v1 import ordered_rules
from .kernel import CLOEXEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .kernel import Kernel

# The context of the program: access type (the device's type in the lower half, what is to be done in
# the upper), major and minor number; and the bits of the two halves.
_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_PROG_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_BPF_PROG_LOAD, _BPF_PROG_ATTACH = 5, 8
_ALLOW_MULTI = 2

# Opcodes: r = *(u32 *)(r1 + offset); 64-bit moves; 32-bit and, shift; jumps; exit.
_LOAD, _MOVE_REGISTER, _MOVE, _AND, _SHIFT = 0x61, 0xBF, 0xB7, 0x54, 0x74
_JUMP_NOT_EQUAL, _JUMP_NOT_EQUAL_REGISTER, _EXIT = 0x55, 0x5D, 0x95


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return (
        bytes((code, target | source << 4))
        + offset.to_bytes(2, "little")
        + (value & 0xFFFFFFFF).to_bytes(4, "little")
    )


def program(devices: list[dict[str, Any]]) -> bytes:
    """The program for `linux.resources.devices`: the last rule that matches decides; none means no.

    Rules apply in the listed order, so a later one overrides an earlier; the program asks them from
    the last to the first and stops at the first match.
    """
    code = [
        _instruction(_LOAD, 2, 1, 0),
        _instruction(_MOVE_REGISTER, 3, 2),
        _instruction(_AND, 2, value=0xFFFF),  # r2: type
        _instruction(_SHIFT, 3, value=16),  # r3: access
        _instruction(_LOAD, 4, 1, 4),  # r4: major
        _instruction(_LOAD, 5, 1, 8),  # r5: minor
    ]
    for rule in reversed(ordered_rules(devices)):
        code += _rule(rule)
        if _matches_everything(rule):
            return b"".join(code)
    return b"".join([*code, *_verdict(allow=False)])


def _verdict(*, allow: bool) -> list[bytes]:
    return [_instruction(_MOVE, 0, value=int(allow)), _instruction(_EXIT)]


def _access(rule: dict[str, Any]) -> int:
    return sum(_ACCESS[letter] for letter in set(rule.get("access") or "rwm"))


def _matches_everything(rule: dict[str, Any]) -> bool:
    anything = (rule.get("type") or "a") == "a" and _access(rule) == 7
    return anything and all(rule.get(key) in (None, -1) for key in ("major", "minor"))


def _rule(rule: dict[str, Any]) -> list[bytes]:
    """The checks of one rule, then its verdict; a failed check jumps behind them."""
    checks: list[tuple[int, int, int, int]] = []
    kind = rule.get("type") or "a"
    if kind in _TYPES:
        checks.append((_JUMP_NOT_EQUAL, 2, 0, _TYPES[kind]))
    prepare: list[bytes] = []
    access = _access(rule)
    if access != 7:
        # An allowing rule must cover everything that is asked; a denying one, a part of it.
        prepare = [_instruction(_MOVE_REGISTER, 6, 3), _instruction(_AND, 6, value=access)]
        checks.append((_JUMP_NOT_EQUAL_REGISTER, 6, 3, 0) if rule["allow"] else (0x15, 6, 0, 0))
    checks += [
        (_JUMP_NOT_EQUAL, register, 0, rule[key])
        for register, key in ((4, "major"), (5, "minor"))
        if rule.get(key) not in (None, -1)
    ]
    verdict = _verdict(allow=rule["allow"])
    ahead = len(checks) + len(verdict)
    jumps = [
        _instruction(code, target, source, ahead - position - 1, value)
        for position, (code, target, source, value) in enumerate(checks)
    ]
    return [*prepare, *jumps, *verdict]


def attach(kernel: Kernel, directory: str, instructions: bytes) -> None:
    """Load a program and attach it to a cgroup.

    Raises:
        OSError: the kernel refuses one or the other.
    """
    from .kernel import address_of

    code, code_address = address_of(instructions)
    licence, licence_address = address_of(b"Apache-2.0\0")
    attributes = (
        _PROG_TYPE_CGROUP_DEVICE.to_bytes(4, "little")
        + (len(instructions) // 8).to_bytes(4, "little")
        + code_address.to_bytes(8, "little")
        + licence_address.to_bytes(8, "little")
        + bytes(120)
    )
    loaded = kernel.call("bpf", _BPF_PROG_LOAD, attributes, len(attributes))
    del code, licence
    cgroup = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | CLOEXEC)
    try:
        words = (cgroup, loaded, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI)
        attributes = b"".join([word.to_bytes(4, "little") for word in words]) + bytes(16)
        kernel.call("bpf", _BPF_PROG_ATTACH, attributes, len(attributes))
    finally:
        posix.close(cgroup)
        posix.close(loaded)
