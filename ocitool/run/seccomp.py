"""`linux.seccomp` compiled to a BPF program (config-linux.md, "Seccomp").

The program looks like this; every path ends in an action::

    load the architecture; for each known one, go to its part; else kill the process
    part: load the number; a binary search over ranges of numbers that share an action
    leaf: the checks of arguments, rule by rule

It is written back to front: jumps only go forward, so every target is known when a jump is written.
A call newer than our tables is answered with ENOSYS and not with the default error: a program then
falls back to an older call, where EPERM would make it give up (RN-15).
"""

from __future__ import annotations

import posix

from ocitool.errors import InvalidContent, Unsupported

from .seccomp_cache import Filter
from .syscalls import numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# AUDIT_ARCH_* of the kernel; x32 is x86_64 with a bit in the number.
ARCHITECTURES = {
    "X86_64": 0xC000003E,
    "X86": 0x40000003,
    "X32": 0xC000003E,
    "AARCH64": 0xC00000B7,
    "ARM": 0x40000028,
    "RISCV64": 0xC00000F3,
    "PPC64LE": 0xC0000015,
    "S390X": 0x80000016,
}
_NATIVE = {
    "x86_64": "X86_64",
    "aarch64": "AARCH64",
    "riscv64": "RISCV64",
    "ppc64le": "PPC64LE",
    "s390x": "S390X",
}
_X32_BIT = 0x40000000
_NARROW = frozenset(("X86", "ARM", "X32"))
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
}
OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # a process of one thread has nothing to synchronise
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 0x20,
}
_WAIT_KILLABLE = FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
_NEW_LISTENER = 8
_WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_EPERM, _ENOSYS = 1, 38
_ALLOW = ACTIONS["SCMP_ACT_ALLOW"]
_KILL_PROCESS = ACTIONS["SCMP_ACT_KILL_PROCESS"]
_NO_SUCH_CALL = ACTIONS["SCMP_ACT_ERRNO"] | _ENOSYS
_MAX_INSTRUCTIONS = 4096
_LARGEST = 0xFFFFFFFF

# BPF: ld [k], jeq, jgt, jge, and, ret, ja.
_LD, _JEQ, _JGT, _JGE, _AND, _RET, _JA = 0x20, 0x15, 0x25, 0x35, 0x54, 0x06, 0x05


class Program:
    """A BPF program that grows from its end to its start.

    A label is the place of an instruction counted from the end. Jumps reach 255 instructions; where a
    target is farther away, an unconditional jump is put in between.
    """

    def __init__(self) -> None:
        self._backwards: list[tuple[int, int, int, int]] = []
        self._returns: dict[int, int] = {}

    def _emit(self, code: int, if_true: int, if_false: int, value: int) -> int:
        self._backwards.append((code, if_true, if_false, value))
        return len(self._backwards) - 1

    def ret(self, action: int) -> int:
        """The label of a return of `action`; each action is written once."""
        if action not in self._returns:
            self._returns[action] = self._emit(_RET, 0, 0, action)
        return self._returns[action]

    def jump(self, code: int, value: int, if_true: int, if_false: int) -> int:
        """Compare the accumulator with `value`, and go to one label or the other."""
        while True:
            here = len(self._backwards)
            if here - if_true - 1 > 255:
                if_true = self._emit(_JA, 0, 0, here - if_true - 1)
            elif here - if_false - 1 > 255:
                if_false = self._emit(_JA, 0, 0, here - if_false - 1)
            else:
                return self._emit(code, here - if_true - 1, here - if_false - 1, value)

    def load(self, offset: int, following: int) -> int:
        """Load a word of seccomp_data, then go on at the label `following`."""
        return self._then(_LD, offset, following)

    def mask(self, value: int, following: int) -> int:
        """Keep the bits of `value`, then go on at the label `following`."""
        return self._then(_AND, value, following)

    def _then(self, code: int, value: int, following: int) -> int:
        # Anything but a jump falls through, so what follows must be written last.
        if following != len(self._backwards) - 1:
            self._emit(_JA, 0, 0, len(self._backwards) - following - 1)
        return self._emit(code, 0, 0, value)

    def assembled(self) -> bytes:
        """The program as the kernel takes it (struct sock_filter, little-endian)."""
        return b"".join(
            [
                (code | if_true << 16 | if_false << 24 | value << 32).to_bytes(8, "little")
                for code, if_true, if_false, value in reversed(self._backwards)
            ]
        )

    def __len__(self) -> int:
        return len(self._backwards)


class _Rules:
    """What a profile says of one call: conditions in order, then what holds without any."""

    def __init__(self) -> None:
        self.conditional: list[tuple[list[dict[str, Any]], int]] = []
        self.always: int | None = None


def _action(name: str, errno: int | None, where: str) -> int:
    if name not in ACTIONS:
        raise InvalidContent(f"linux.seccomp: {where} {name!r} is no action")
    if errno is not None and name not in _WITH_ERRNO:
        # "If the action doesn't support returning an errno, the runtime MUST print and error and fail."
        raise InvalidContent(f"linux.seccomp: {where} {name} takes no errno")
    if name in _WITH_ERRNO:
        return ACTIONS[name] | (_EPERM if errno is None else errno & 0xFFFF)
    return ACTIONS[name]


def _collect(profile: dict[str, Any], default: int) -> dict[str, _Rules]:
    """The rules by the name of the call."""
    found: dict[str, _Rules] = {}
    for entry in profile.get("syscalls") or []:
        action = _action(entry["action"], entry.get("errnoRet"), "the action")
        if not entry["names"]:
            # "names MUST contain at least one entry."
            raise InvalidContent("linux.seccomp: a rule names no call")
        if action == default:
            continue
        args = entry.get("args") or []
        for argument in args:
            if argument["op"].removeprefix("SCMP_CMP_") not in OPERATORS:
                raise InvalidContent(f"linux.seccomp: {argument['op']!r} is no operator")
        # Conditions on different arguments must all hold; several on the same one are alternatives.
        indices = [argument["index"] for argument in args]
        alternatives = [[argument] for argument in args] if len(set(indices)) < len(indices) else [args]
        for name in entry["names"]:
            rules = found.setdefault(name, _Rules())
            if not args:
                rules.always = action if rules.always is None else rules.always
            else:
                rules.conditional += [(conditions, action) for conditions in alternatives]
    return found


class _Compiler:
    def __init__(self, rules: dict[str, _Rules], default: int) -> None:
        self.program = Program()
        self.rules = rules
        self.default = default
        # A default that refuses says ENOSYS to what it cannot know.
        refuses = default & 0xFFFF0000 in (ACTIONS["SCMP_ACT_ERRNO"], ACTIONS["SCMP_ACT_KILL"], _KILL_PROCESS)
        self.unknown = _NO_SUCH_CALL if refuses else default
        self._shared: dict[tuple[int, bool], int] = {}

    def compile(self, architectures: list[str]) -> bytes:
        program = self.program
        tokens: dict[int, list[str]] = {}
        for architecture in architectures:
            tokens.setdefault(ARCHITECTURES[architecture], []).append(architecture)
        dispatch = program.ret(_KILL_PROCESS)
        parts = [(token, self._part(token, members)) for token, members in reversed(tokens.items())]
        for token, part in parts:
            dispatch = program.jump(_JEQ, token, part, dispatch)
        program.load(4, dispatch)
        if len(program) > _MAX_INSTRUCTIONS:
            raise Unsupported(
                f"linux.seccomp: the filter has {len(program)} instructions, the kernel takes 4096"
            )
        return program.assembled()

    def _part(self, token: int, members: list[str]) -> int:
        """The part for one architecture token: ranges of numbers from 0 on, each with the label to go to."""
        ranges: list[tuple[int, int]] = []
        for architecture in sorted(members, key=lambda name: name == "X32"):
            if architecture == "X32" and "X86_64" not in members:
                self._extend(ranges, 0, self.program.ret(_NO_SUCH_CALL))
            self._ranges(ranges, architecture)
        if token == ARCHITECTURES["X86_64"] and "X32" not in members:
            self._extend(ranges, _X32_BIT, self.program.ret(_NO_SUCH_CALL))
        return self.program.load(0, self._search(ranges))

    def _ranges(self, ranges: list[tuple[int, int]], architecture: str) -> None:
        base = _X32_BIT if architecture == "X32" else 0
        table = numbers(architecture)
        default = self.program.ret(self.default)
        leaves = [(table[name] + base, name) for name in self.rules if name in table]
        following = base
        for number, name in sorted(leaves):
            if number > following:
                self._extend(ranges, following, default)
            self._extend(ranges, number, self._leaf(self.rules[name], narrow=architecture in _NARROW))
            following = number + 1
        newest = max(number for number in table.values() if number < 0xF0000) + base + 1
        if newest > following:
            self._extend(ranges, following, default)
        self._extend(ranges, max(newest, following), self.program.ret(self.unknown))

    @staticmethod
    def _extend(ranges: list[tuple[int, int]], start: int, label: int) -> None:
        if not ranges or ranges[-1][1] != label:
            ranges.append((start, label))

    def _search(self, ranges: list[tuple[int, int]]) -> int:
        if len(ranges) == 1:
            return ranges[0][1]
        middle = len(ranges) // 2
        upper = self._search(ranges[middle:])
        lower = self._search(ranges[:middle])
        return self.program.jump(_JGE, ranges[middle][0], upper, lower)

    def _leaf(self, rules: _Rules, *, narrow: bool) -> int:
        fallback = self.program.ret(self.default if rules.always is None else rules.always)
        if not rules.conditional:
            return fallback
        key = (id(rules), narrow)
        if key not in self._shared:
            for conditions, action in reversed(rules.conditional):
                label = self.program.ret(action)
                for condition in reversed(conditions):
                    label = self._condition(condition, label, fallback, narrow=narrow)
                fallback = label
            self._shared[key] = fallback
        return self._shared[key]

    def _condition(self, condition: dict[str, Any], yes: int, no: int, *, narrow: bool) -> int:
        """Compare one argument: 64 bits as two words, or the lower word alone for a 32-bit architecture."""
        operator = condition["op"].removeprefix("SCMP_CMP_")
        value, second = condition["value"], condition.get("valueTwo") or 0
        if operator in ("NE", "LT", "LE"):
            operator = {"NE": "EQ", "LT": "GE", "LE": "GT"}[operator]
            yes, no = no, yes
        low_offset = 16 + 8 * condition["index"]
        code = {"EQ": _JEQ, "GE": _JGE, "GT": _JGT, "MASKED_EQ": _JEQ}[operator]
        masked = operator == "MASKED_EQ"
        wanted = second if masked else value
        label = self.program.jump(code, wanted & _LARGEST, yes, no)
        if masked:
            label = self.program.mask(value & _LARGEST, label)
        label = self.program.load(low_offset, label)
        if narrow:
            return label
        label = self.program.jump(_JEQ, wanted >> 32, label, no)
        if code in (_JGE, _JGT):
            label = self.program.jump(_JGT, wanted >> 32, yes, label)
        if masked:
            label = self.program.mask(value >> 32, label)
        return self.program.load(low_offset + 4, label)


def native() -> str:
    """The architecture of this machine, by the specification's name without "SCMP_ARCH_"."""
    return _NATIVE[posix.uname().machine]


def _architectures(profile: dict[str, Any]) -> list[str]:
    """This machine's own architecture, then those of the profile."""
    found = [native()]
    for name in profile.get("architectures") or []:
        short = name.removeprefix("SCMP_ARCH_")
        if short not in ARCHITECTURES:
            raise Unsupported(f"linux.seccomp: the architecture {name} is not supported")
        if short not in found:
            found.append(short)
    return found


def compile_filter(profile: dict[str, Any]) -> Filter:
    """Compile `linux.seccomp`.

    Raises:
        InvalidContent: the profile is not valid.
        Unsupported: it names an architecture that there is no table for, or is too large.
    """
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"), "defaultAction")
    flags = 0
    for name in profile.get("flags") or []:
        if name not in FLAGS:
            raise InvalidContent(f"linux.seccomp: {name!r} is no flag")
        flags |= FLAGS[name]
    rules = _collect(profile, default)
    notifies = _check_listener(profile, default, rules)
    # The kernel takes the one only with the other.
    flags = flags | _NEW_LISTENER if notifies else flags & ~_WAIT_KILLABLE
    program = _Compiler(rules, default).compile(_architectures(profile))
    fcntl = rules.get("fcntl")
    outcome = default if fcntl is None or fcntl.always is None else fcntl.always
    return Filter(
        program,
        flags,
        allows_fcntl=outcome == _ALLOW and not (fcntl and fcntl.conditional),
        notifies=notifies,
    )


def _check_listener(profile: dict[str, Any], default: int, rules: dict[str, _Rules]) -> bool:
    """Whether the profile asks an agent outside about some calls.

    Raises:
        InvalidContent: it can't be asked: about every call, about `write`, or because it is not named.
    """
    # "This field MUST NOT be set if `listenerPath` is not set."
    if profile.get("listenerMetadata") and not profile.get("listenerPath"):
        raise InvalidContent("linux.seccomp: listenerMetadata is given without listenerPath")
    notify = ACTIONS["SCMP_ACT_NOTIFY"]
    if default == notify:
        raise InvalidContent("linux.seccomp: SCMP_ACT_NOTIFY can't be the default: nothing could be started")
    asked = {
        name
        for name, found in rules.items()
        if found.always == notify or any(action == notify for _, action in found.conditional)
    }
    if "write" in asked:
        raise InvalidContent(
            "linux.seccomp: SCMP_ACT_NOTIFY can't be the action for write, by which the listener is told"
        )
    if asked and not profile.get("listenerPath"):
        raise InvalidContent("linux.seccomp: SCMP_ACT_NOTIFY needs a listenerPath")
    return bool(asked)
