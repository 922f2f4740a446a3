"""A TCP proxy in the test process that breaks, slows and delays what passes through it."""

from __future__ import annotations

import fcntl
import queue
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from support.waiting import until


@dataclass
class Faults:
    """What happens to connections; may be changed while they are open.

    Attributes:
        limits: for one connection after the other, how many bytes of answers pass before it breaks.
        how: what breaking means: reset, end (an orderly close) or stall.
        rate: bytes of answers per second and connection; 0 for no limit.
        delay: seconds that a byte travels, in each direction.
        drip: seconds between single bytes of answers.
    """

    limits: Callable[[int], int | None] = lambda _: None
    how: str = "reset"
    rate: float = 0
    delay: float = 0
    drip: float = 0


def _unsent(sock: socket.socket) -> int:
    """How many bytes the peer has not acknowledged."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(count)


class FaultProxy:
    """Forwards connections to a server."""

    def __init__(self, target: tuple[str, int], faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.connections = 0
        self.passed = 0  # bytes of answers
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.name = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()

    @contextmanager
    def running(self) -> Iterator[FaultProxy]:
        self._spawn(self._accept)
        try:
            yield self
        finally:
            self._closing.set()
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            for sock in list(self._sockets):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            for thread in self._threads:
                thread.join(5)
            for sock in list(self._sockets):
                sock.close()

    def _spawn(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            number, self.connections = self.connections, self.connections + 1
            server = socket.create_connection(self._target)
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.add(sock)
            if self.faults.rate:
                # Without this the kernel's buffers would hold what the rate is to keep back.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            self._spawn(partial(self._forward, client, server, None, answers=False))
            self._spawn(partial(self._forward, server, client, self.faults.limits(number), answers=True))

    def _forward(
        self, source: socket.socket, sink: socket.socket, limit: int | None, *, answers: bool
    ) -> None:
        """Carry bytes one way until one side ends or the limit is reached."""
        send = self._delayed(sink) if self.faults.delay else self._dripping(sink) if answers else sink.sendall
        passed, started = 0, time.monotonic()
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if limit is not None and passed + len(data) >= limit:
                    self.passed += limit - passed
                    send(data[: limit - passed])
                    self._break(source, sink)
                    return
                passed += len(data)
                if answers:
                    self.passed += len(data)
                    self._hold(started, passed)
                send(data)
        with suppress(OSError):
            send(b"") if self.faults.delay else sink.shutdown(socket.SHUT_WR)

    def _hold(self, started: float, passed: int) -> None:
        if self.faults.rate:
            self._closing.wait(max(0.0, started + passed / self.faults.rate - time.monotonic()))

    def _dripping(self, sink: socket.socket) -> Callable[[bytes], None]:
        if not self.faults.drip:
            return sink.sendall

        def send(data: bytes) -> None:
            for i in range(len(data)):
                sink.sendall(data[i : i + 1])
                if self._closing.wait(self.faults.drip):
                    raise OSError

        return send

    def _delayed(self, sink: socket.socket) -> Callable[[bytes], None]:
        line: queue.Queue[tuple[float, bytes]] = queue.Queue()
        self._spawn(self._deliver, line, sink)
        return lambda data: line.put((time.monotonic() + self.faults.delay, data))

    def _deliver(self, line: queue.Queue[tuple[float, bytes]], sink: socket.socket) -> None:
        with suppress(OSError):
            while True:
                due, data = line.get()
                self._closing.wait(max(0.0, due - time.monotonic()))
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)

    def _break(self, source: socket.socket, sink: socket.socket) -> None:
        if self.faults.how == "stall":
            self._closing.wait()
            return
        if self.faults.how == "reset":
            # A reset discards what the peer's kernel does not have yet, and nothing that it has.
            until(lambda: self._closing.is_set() or not _unsent(sink))
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._sockets.discard(sink)
            with suppress(OSError):
                source.shutdown(socket.SHUT_RDWR)
                # Another thread reads from this socket, which would put its closing off.
                sink.shutdown(socket.SHUT_RD)
            time.sleep(0.01)
            sink.close()
            return
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
            source.shutdown(socket.SHUT_RDWR)


@contextmanager
def closed_port() -> Iterator[socket.socket]:
    """A port on which nobody listens, and which nobody else is given meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held


def name_of(port: socket.socket) -> str:
    """Host and port, as they stand in a reference."""
    return "{}:{}".format(*port.getsockname())
