"""`ocitool serve` beside Debian's docker-registry: one large blob pulled and pushed, and 200 clients at once.

Both serve from the memory file system on loopback, and the same client talks to both, so that what is
compared is the servers. Their peak memory is what the kernel counted.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from support.registry_process import docker_registry

from ocitool.layout.store import initialise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOB_BYTES = 317_000_000
SMALL_BYTES = 4 << 20
CLIENTS = 200
ROUNDS = 7


@contextmanager
def ocitool(work: Path) -> Iterator[str]:
    """Run `ocitool serve` on an empty layout; gives its host:port."""
    initialise(work / "layout")
    address = work / "address"
    command = [sys.executable, "-m", "ocitool", "--quiet", "serve", str(work / "layout")]
    process = subprocess.Popen([*command, "--listen", "127.0.0.1:0", "--address-file", str(address)])
    try:
        while not (address.exists() and address.read_text()):
            if process.poll() is not None:
                raise SystemExit("ocitool serve does not run")
            time.sleep(0.02)
        yield address.read_text().strip()
    finally:
        process.terminate()
        process.wait()


def pull(host: str, digest: str) -> None:
    """Pull with a client that costs little."""
    url = f"http://{host}/v2/bench/blobs/{digest}"
    subprocess.run(["curl", "--silent", "--fail", "--output", "/dev/null", url], check=True)


def push(host: str, file: Path, digest: str) -> None:
    """Push as docker does: begin, one stream of unknown length, close."""
    connection = http.client.HTTPConnection(host)
    location = request(connection, "POST", "/v2/bench/blobs/uploads/", b"")
    command = [
        "curl",
        "--silent",
        "--fail",
        "--output",
        "/dev/null",
        "--dump-header",
        "-",
        "--request",
        "PATCH",
    ]
    command += ["--header", "Transfer-Encoding: chunked", "--header", "Expect:", "--upload-file", str(file)]
    done = subprocess.run([*command, f"http://{host}{location}"], check=True, capture_output=True, text=True)
    headers = [line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line]
    location = path_of(next(value for name, value in headers if name.lower() == "location"))
    request(connection, "PUT", location + ("&" if "?" in location else "?") + f"digest={digest}", b"")
    connection.close()


def request(connection: http.client.HTTPConnection, method: str, path: str, body: bytes) -> str:
    """Send a request, and give the path that the answer's Location has."""
    connection.request(method, path, body)
    response = connection.getresponse()
    response.read()
    if response.status not in {201, 202}:
        raise SystemExit(f"{method} {path} was answered with {response.status}")
    return path_of(response.headers["location"])


def path_of(location: str) -> str:
    """A location, without the host."""
    parts = urlsplit(location)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def crowd(host: str, digest: str) -> None:
    """Many clients that begin at the same moment."""
    together = threading.Barrier(CLIENTS)

    def one(_: int) -> int:
        connection = http.client.HTTPConnection(host, timeout=120)
        together.wait()
        connection.request("GET", f"/v2/bench/blobs/{digest}")
        response = connection.getresponse()
        size = 0
        while piece := response.read(1 << 20):
            size += len(piece)
        connection.close()
        return size

    with ThreadPoolExecutor(CLIENTS) as pool:
        whole = sum(size == SMALL_BYTES for size in pool.map(one, range(CLIENTS)))
    if whole != CLIENTS:
        raise SystemExit(f"{CLIENTS - whole} of {CLIENTS} clients were dropped by {host}")


def in_turns(title: str, bytes_moved: int, hosts: dict[str, str], work: Callable[[str], None]) -> None:
    """Measure each server in turns, and print medians."""
    seconds: dict[str, list[float]] = {name: [] for name in hosts}
    for number in range(ROUNDS + 1):
        for name, host in hosts.items():
            started = time.perf_counter()
            work(host)
            if number:  # the first round warms caches
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(measured) for name, measured in seconds.items()}
    print(f"\n{title}: medians of {ROUNDS}")
    for name, median in medians.items():
        print(f"  {name:<16} {median:7.3f} s  {bytes_moved / median / 1e6:7.0f} MB/s")
    theirs, ours = medians["docker-registry"], medians["ocitool serve"]
    print(f"  throughput of ocitool serve / docker-registry = {theirs / ours:.2f}")


def peak_mib(host: str) -> float:
    """The peak resident memory of the process that listens on a port."""
    port = int(host.rpartition(":")[2])
    listening = subprocess.run(
        ["ss", "-ltnpH", f"sport = :{port}"], check=True, capture_output=True, text=True
    )
    pid = listening.stdout.partition("pid=")[2].partition(",")[0]
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    memory = Path("/dev/shm")
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)))
        for part in ("ours", "theirs"):
            (work / part).mkdir()
        hosts = {
            "ocitool serve": stack.enter_context(ocitool(work / "ours")),
            "docker-registry": stack.enter_context(docker_registry(work / "theirs")),
        }
        files = {}
        for size in (BLOB_BYTES, SMALL_BYTES):
            files[size] = work / str(size)
            files[size].write_bytes(os.urandom(size))
        digests = {
            size: f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" for size, file in files.items()
        }
        for host in hosts.values():
            push(host, files[SMALL_BYTES], digests[SMALL_BYTES])
            push(host, files[BLOB_BYTES], digests[BLOB_BYTES])
        in_turns("317 MB pulled", BLOB_BYTES, hosts, lambda host: pull(host, digests[BLOB_BYTES]))
        for name, host in hosts.items():
            print(f"  {name:<16} {peak_mib(host):7.1f} MiB peak")
        in_turns(
            f"{CLIENTS} clients at once, 4 MiB each",
            CLIENTS * SMALL_BYTES,
            hosts,
            lambda host: crowd(host, digests[SMALL_BYTES]),
        )
        for name, host in hosts.items():
            print(f"  {name:<16} {peak_mib(host):7.1f} MiB peak")
        in_turns("317 MB pushed", BLOB_BYTES, hosts, lambda host: push_new(host, files[BLOB_BYTES]))
        for name, host in hosts.items():
            print(f"  {name:<16} {peak_mib(host):7.1f} MiB peak")


def push_new(host: str, file: Path) -> None:
    """Push content that the server has not seen: the file with another first few bytes."""
    with file.open("r+b") as opened:
        opened.write(os.urandom(16))
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(1 << 20):
            digest.update(piece)
    push(host, file, f"sha256:{digest.hexdigest()}")


if __name__ == "__main__":
    main()
