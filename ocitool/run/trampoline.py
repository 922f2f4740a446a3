"""The last step before the container's program: an ELF file of a few instructions in sealed memory.

While a container starts, /proc/self/exe is the host's Python. A program whose interpreter is
"/proc/self/exe" would run it again inside, where root could open it for writing (CVE-2019-5736). So
the runtime first becomes this file, of which the container may have whatever it likes; the file
marks the error pipe close-on-exec, executes the target, and writes the errno if that fails. Run
again from inside, it finds no pipe, and ends.
"""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .kernel import Kernel

_BASE = 0x400000
_HEADERS = 64 + 56
_MACHINES = {"x86_64": 62, "aarch64": 183}
_F_ADD_SEALS, _ALL_SEALS = 1033, 0x0F
_MFD_CLOEXEC, _MFD_ALLOW_SEALING, _MFD_EXEC = 1, 2, 0x10


def _word(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def _code_x86_64(fd: int, path: int) -> bytes:
    """fcntl(fd, F_SETFD, FD_CLOEXEC) or _exit; execve(path, argv, envp); write(fd, &errno, 4); _exit(127)."""
    leave = b"\xbf\x7f\x00\x00\x00" + b"\xb8\xe7\x00\x00\x00\x0f\x05"  # edi = 127; exit_group
    work = b"".join(
        (
            b"\xbf" + _word(path, 4),  # mov edi, path
            b"\x48\x8b\x04\x24",  # mov rax, [rsp]: argc
            b"\x48\x8d\x74\x24\x08",  # lea rsi, [rsp+8]: argv
            b"\x48\x8d\x54\xc4\x10",  # lea rdx, [rsp+rax*8+16]: envp
            b"\xb8\x3b\x00\x00\x00\x0f\x05",  # mov eax, execve; syscall
            b"\xf7\xd8\x50",  # neg eax; push rax
            b"\xbf" + _word(fd, 4),  # mov edi, fd
            b"\x48\x89\xe6",  # mov rsi, rsp
            b"\xba\x04\x00\x00\x00",  # mov edx, 4
            b"\xb8\x01\x00\x00\x00\x0f\x05",  # mov eax, write; syscall
        )
    )
    mark = b"".join(
        (
            b"\xbf" + _word(fd, 4),  # mov edi, fd
            b"\xbe\x02\x00\x00\x00",  # mov esi, F_SETFD
            b"\xba\x01\x00\x00\x00",  # mov edx, FD_CLOEXEC
            b"\xb8\x48\x00\x00\x00\x0f\x05",  # mov eax, fcntl; syscall
            b"\x85\xc0\x0f\x88" + _word(len(work), 4),  # test eax, eax; js leave
        )
    )
    return mark + work + leave


def _movz(register: int, value: int) -> bytes:
    """MOVZ and MOVK: a 32-bit value into a register."""
    low, high = value & 0xFFFF, value >> 16
    return _word(0xD2800000 | low << 5 | register, 4) + _word(0xF2A00000 | high << 5 | register, 4)


def _code_aarch64(fd: int, path: int) -> bytes:
    """The same, for arm64."""
    call = _word(0xD4000001, 4)  # svc #0
    leave = _movz(0, 127) + _movz(8, 94) + call
    work = b"".join(
        (
            _movz(0, path),
            _word(0xF94003E3, 4),  # ldr x3, [sp]: argc
            _word(0x910023E1, 4),  # add x1, sp, #8: argv
            _word(0x8B030C22, 4),  # add x2, x1, x3, lsl #3
            _word(0x91002042, 4),  # add x2, x2, #8: envp
            _movz(8, 221) + call,
            _word(0x4B0003E0, 4),  # neg w0, w0
            _word(0xB81F0FE0, 4),  # str w0, [sp, #-16]!
            _movz(0, fd),
            _word(0x910003E1, 4),  # mov x1, sp
            _movz(2, 4) + _movz(8, 64) + call,
        )
    )
    mark = _movz(0, fd) + _movz(1, 2) + _movz(2, 1) + _movz(8, 25) + call
    branch = _word(0x37F80000 | (len(work) // 4 + 1) << 5, 4)  # tbnz w0, #31, leave
    return mark + branch + work + leave


def elf(machine: str, fd: int, path: bytes) -> bytes | None:
    """The whole file, or None for a machine it is not written for."""
    if machine not in _MACHINES:
        return None
    make = _code_x86_64 if machine == "x86_64" else _code_aarch64
    size = len(make(fd, 0))
    code = make(fd, _BASE + _HEADERS + size)
    total = _HEADERS + size + len(path) + 1
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9)
        + _word(2, 2) + _word(_MACHINES[machine], 2) + _word(1, 4)
        + _word(_BASE + _HEADERS, 8) + _word(64, 8) + bytes(8)
        + bytes(4) + _word(64, 2) + _word(56, 2) + _word(1, 2) + bytes(6)
    )  # fmt: skip
    segment = (
        _word(1, 4) + _word(5, 4) + bytes(8) + _word(_BASE, 8) * 2 + _word(total, 8) * 2 + _word(0x1000, 8)
    )  # fmt: skip
    return header + segment + code + path + b"\0"


def sealed(kernel: Kernel, error_fd: int, path: str) -> int:
    """A sealed memory file that executes `path`, or -1 where this machine or kernel has none."""
    content = elf(posix.uname().machine, error_fd, path.encode("utf-8", "surrogateescape"))
    if content is None:
        return -1
    flags = _MFD_CLOEXEC | _MFD_ALLOW_SEALING
    try:
        try:
            fd = kernel.call("memfd_create", b"ocitool-init", flags | _MFD_EXEC)
        except OSError:
            fd = kernel.call("memfd_create", b"ocitool-init", flags)  # before Linux 6.3
    except OSError:
        return -1
    posix.write(fd, content)
    kernel.call("fcntl", fd, _F_ADD_SEALS, _ALL_SEALS)
    return fd
