"""As much of D-Bus as it takes to call a service and wait for its answer (dbus.freedesktop.org, version 1).

Values are Python's: integers, strings, lists for arrays and structures, and `Variant` for a value that brings
its own type.
"""

from __future__ import annotations

from ocitool.errors import RunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_SIZES = {"y": 1, "b": 4, "n": 2, "q": 2, "i": 4, "u": 4, "x": 8, "t": 8}
_ALIGNMENT = {**_SIZES, "s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8}
_SIGNED = "nix"
_CALL, _RETURN, _ERROR, _SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_FIELD_TYPES = {_PATH: "o", _INTERFACE: "s", _MEMBER: "s", _DESTINATION: "s", _SIGNATURE: "g"}
_LARGEST_MESSAGE = 128 << 20  # "The maximum length of a message ... is 128 MiB"
_TIMEOUT = 30.0  # seconds: longer than a manager that is at work needs


class Variant:
    """A value with its type."""

    def __init__(self, signature: str, value: Any) -> None:
        self.signature = signature
        self.value = value


class Message:
    """What came from the bus.

    Attributes:
        kind: 2 for a reply, 3 for an error, 4 for a signal.
        fields: header fields by their number.
        body: the arguments.
    """

    def __init__(self, kind: int, fields: dict[int, Any], body: list[Any]) -> None:
        self.kind = kind
        self.fields = fields
        self.body = body


class CallError(RunError):
    """A service answered with an error.

    Attributes:
        name: its name on the bus.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def _end_of_type(signature: str, at: int) -> int:
    """Where the complete type ends that begins at `at`."""
    if signature[at] == "a":
        return _end_of_type(signature, at + 1)
    if signature[at] not in "({":
        return at + 1
    at += 1
    while signature[at] not in ")}":
        at = _end_of_type(signature, at)
    return at + 1


def types_of(signature: str) -> list[str]:
    """The complete types of a signature."""
    found, at = [], 0
    while at < len(signature):
        end = _end_of_type(signature, at)
        found.append(signature[at:end])
        at = end
    return found


class Writer:
    """Values as bytes, each aligned as its type demands, in little-endian order."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, boundary: int) -> None:
        """Fill with NUL bytes up to a multiple of `boundary`."""
        self.data += bytes(-len(self.data) % boundary)

    def put(self, kind: str, value: Any) -> None:
        """Append a value of one complete type."""
        code = kind[0]
        self.align(_ALIGNMENT[code])
        if code in _SIZES:
            self.data += int(value).to_bytes(_SIZES[code], "little", signed=code in _SIGNED)
        elif code in "sog":
            text = value.encode()
            self.data += len(text).to_bytes(1 if code == "g" else 4, "little") + text + b"\0"
        elif code == "v":
            self.put("g", value.signature)
            self.put(value.signature, value.value)
        elif code == "a":
            self._array(kind[1:], value)
        else:
            for member, item in zip(types_of(kind[1:-1]), value, strict=True):
                self.put(member, item)

    def _array(self, kind: str, values: Sequence[Any]) -> None:
        at = len(self.data)
        self.data += bytes(4)
        # The padding before the first element does not count, and is there in an empty array, too.
        self.align(_ALIGNMENT[kind[0]])
        start = len(self.data)
        for value in values:
            self.put(kind, value)
        self.data[at : at + 4] = (len(self.data) - start).to_bytes(4, "little")


class Reader:
    """The way back; a byte that is missing is an `IndexError`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def _take(self, count: int) -> bytes:
        if self.at + count > len(self._data):
            raise IndexError(count)
        self.at += count
        return self._data[self.at - count : self.at]

    def _number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._take(size), "little", signed=signed)

    def get(self, kind: str) -> Any:
        """Take a value of one complete type."""
        code = kind[0]
        self.at += -self.at % _ALIGNMENT[code]
        if code in _SIZES:
            return self._number(_SIZES[code], signed=code in _SIGNED)
        if code in "sog":
            text = self._take(self._number(1 if code == "g" else 4)).decode(errors="replace")
            self._take(1)
            return text
        if code == "v":
            return self.get(self.get("g"))
        if code == "a":
            return self._array(kind[1:])
        return [self.get(member) for member in types_of(kind[1:-1])]

    def _array(self, kind: str) -> list[Any]:
        length = self._number(4)
        self.at += -self.at % _ALIGNMENT[kind[0]]
        end, found = self.at + length, []
        while self.at < end:
            found.append(self.get(kind))
        return found


class Bus:
    """A connection to a message bus.

    Args:
        address: as in DBUS_SESSION_BUS_ADDRESS.

    Raises:
        RunError: there is no bus, or it does not take us.
    """

    def __init__(self, address: str) -> None:
        import _socket

        name = _socket_name(address)
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self._socket.settimeout(_TIMEOUT)
        self._address = address
        self._serial = 0
        self._rest = b""
        self._signals: list[Message] = []
        try:
            self._socket.connect(name)
            self._authenticate()
            self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")
        except OSError as exc:
            self.close()
            raise RunError(f"message bus {address}: {exc.strerror or exc}") from exc
        except RunError:
            self.close()
            raise

    def _authenticate(self) -> None:
        """Have the kernel say who we are: in a user namespace we don't know what we are called outside."""
        self._socket.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\n")
        answer = b""
        while answer.count(b"\r\n") < 2:
            piece = self._socket.recv(512)
            if not piece:
                break
            answer += piece
        if not answer.startswith(b"DATA\r\nOK "):
            raise RunError(f"message bus {self._address} does not let this user in")
        self._socket.sendall(b"BEGIN\r\n")

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def call(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", *arguments: Any
    ) -> list[Any]:
        """Call a method, and wait for its answer.

        Raises:
            CallError: the service answered with an error.
            RunError: the connection ended.
        """
        self._serial += 1
        fields = {_PATH: path, _INTERFACE: interface, _MEMBER: member, _DESTINATION: destination}
        if signature:
            fields[_SIGNATURE] = signature
        self._send(_message(self._serial, fields, signature, arguments))
        while True:
            found = self._receive()
            if found.kind == _SIGNAL:
                self._signals.append(found)
            elif found.fields.get(_REPLY_SERIAL) == self._serial:
                if found.kind == _ERROR:
                    said = next((str(each) for each in found.body), "no reason is given")
                    raise CallError(found.fields.get(_ERROR_NAME, ""), f"{member}: {said}")
                return found.body

    def signal(self, member: str) -> list[Any]:
        """Wait for the next signal of a name, and return its arguments."""
        while True:
            found = self._signals.pop(0) if self._signals else self._receive()
            if found.kind == _SIGNAL and found.fields.get(_MEMBER) == member:
                return found.body

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as exc:
            raise RunError(f"message bus {self._address}: {exc.strerror or exc}") from exc

    def _read(self, count: int) -> bytes:
        while len(self._rest) < count:
            try:
                piece = self._socket.recv(65536)
            except OSError as exc:
                raise RunError(f"message bus {self._address}: {exc.strerror or 'no answer came'}") from exc
            if not piece:
                raise RunError(f"message bus {self._address} has ended the connection")
            self._rest += piece
        found, self._rest = self._rest[:count], self._rest[count:]
        return found

    def _receive(self) -> Message:
        head = self._read(16)
        sizes = Reader(head)
        sizes.at = 4
        body_length, _, fields_length = (sizes.get("u") for _ in range(3))
        rest = fields_length + -fields_length % 8 + body_length
        if head[0:1] != b"l" or rest > _LARGEST_MESSAGE:
            raise RunError(f"message bus {self._address} sent what is no message")
        data = head + self._read(rest)
        try:
            return _parsed(data)
        except (IndexError, KeyError) as exc:
            raise RunError(f"message bus {self._address} sent a message that ends early") from exc


def _message(serial: int, fields: dict[int, str], signature: str, arguments: Sequence[Any]) -> bytes:
    body = Writer()
    for kind, value in zip(types_of(signature), arguments, strict=True):
        body.put(kind, value)
    head = Writer()
    for kind, value in (
        ("y", ord("l")),
        ("y", _CALL),
        ("y", 0),
        ("y", 1),
        ("u", len(body.data)),
        ("u", serial),
    ):
        head.put(kind, value)
    head.put("a(yv)", [[number, Variant(_FIELD_TYPES[number], value)] for number, value in fields.items()])
    head.align(8)
    return bytes(head.data + body.data)


def _parsed(data: bytes) -> Message:
    reader = Reader(data)
    reader.at = 12
    fields = dict(reader.get("a(yv)"))
    reader.at += -reader.at % 8
    body = [reader.get(kind) for kind in types_of(fields.get(_SIGNATURE, ""))]
    return Message(data[1], fields, body)


def _socket_name(address: str) -> str:
    """The name of the first Unix socket of an address.

    Raises:
        RunError: it has none.
    """
    for part in address.split(";"):
        kind, _, values = part.partition(":")
        keys = dict(item.partition("=")[::2] for item in values.split(","))
        if kind == "unix" and "path" in keys:
            return _unescaped(keys["path"])
        if kind == "unix" and "abstract" in keys:
            return "\0" + _unescaped(keys["abstract"])
    raise RunError(f"the address of the message bus, {address!r}, names no Unix socket")


def _unescaped(text: str) -> str:
    first, *others = text.split("%")
    return first + "".join([chr(int(part[:2], 16)) + part[2:] for part in others])
