"""A simulator of the kernel's BPF machine for seccomp, so that a filter can be asked what it would do."""

from __future__ import annotations

import struct


def run(program: bytes, architecture: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the filter returns for one call.

    Raises:
        AssertionError: the program does what the kernel would have refused to load.
    """
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, architecture, 0, *padded)
    instructions = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator = at = 0
    for _ in range(len(instructions)):
        code, if_true, if_false, value = instructions[at]
        at += 1
        match code:
            case 0x20:
                assert value % 4 == 0
                assert value < 64
                accumulator = struct.unpack_from("<I", data, value)[0]
            case 0x54:
                accumulator &= value
            case 0x05:
                at += value
            case 0x15 | 0x25 | 0x35:
                holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}[
                    code
                ]
                at += if_true if holds else if_false
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")
    raise AssertionError("the program does not end")
