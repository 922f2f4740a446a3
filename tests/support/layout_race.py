"""Many processes in one layout: what each does, and what must be true afterwards."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

from support.layout_content import blob, put_artifact

from ocitool.layout import LayoutStore
from ocitool.layout.check import check
from ocitool.layout.gc import collect
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.transfer import copy

ROOT = Path(__file__).parents[2]


def start(job: str, path: Path, *arguments: object) -> subprocess.Popen[str]:
    """Run one of the jobs below in a process of its own."""
    command = [sys.executable, "-m", "support.layout_race", job, str(path), *map(str, arguments)]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def tag_many(path: Path, worker: int, tags: int, rounds: int) -> None:
    """Pull artifacts that share a blob with those of all others, under names of this worker's own.

    Each round has a store of its own, as each command has; every other round's names are deleted again.
    """
    for number in range(rounds):
        source = MemoryStore()
        store = LayoutStore(path)
        for tag in range(tags):
            name = f"w{worker}-t{tag}"
            source.tag(put_artifact(source, f"{name} round {number} {'x' * 500}"), name)
            copy(source, store, name, jobs=2)
        for tag in range(0, tags, 4):
            store.untag(f"w{worker}-t{tag}")
            copy(source, store, f"w{worker}-t{tag}", jobs=2)
        store.close()


def collect_always(path: Path, rounds: int) -> None:
    """Collect garbage again and again."""
    for _ in range(rounds):
        collect(LayoutStore(path), partial_age=0)


def pull_same(path: Path, source: str, ref: str) -> None:
    """Copy one image; says how many blobs this process moved."""
    from ocitool.events import Started

    moved: list[object] = []
    copy(LayoutStore(source, read_only=True), LayoutStore(path), ref, on_event=moved.append)
    sys.stdout.write(str(sum(isinstance(event, Started) for event in moved)))


def resume(path: Path, content: str) -> None:
    """Ask for a blob that another process is bringing."""
    sys.stdout.write("waiting\n")
    sys.stdout.flush()
    with LayoutStore(path).resume(blob(bytes.fromhex(content))) as partial:
        sys.stdout.write("mine\n" if partial else "whole\n")


def tag_and_tell(path: Path, worker: int) -> None:
    """Pull without end, and say each name once it has been given."""
    for number in itertools.count():
        name = f"w{worker}-{number}"
        source, store = MemoryStore(), LayoutStore(path)
        source.tag(put_artifact(source, name), name)
        copy(source, store, name, jobs=2)
        store.close()
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()


def expected(worker: int, tag: int, rounds: int) -> Descriptor:
    """What a name must stand for in the end."""
    return put_artifact(MemoryStore(), f"w{worker}-t{tag} round {rounds - 1} {'x' * 500}")


def violations(path: Path, workers: int, tags: int, rounds: int) -> list[str]:
    """What is wrong after the race."""
    store = LayoutStore(path, read_only=True)
    wrong = [f"{problem.where} {problem.message}" for problem in check(store)]
    found = set(store.tags())
    for worker in range(workers):
        for tag in range(tags):
            name = f"w{worker}-t{tag}"
            if name not in found:
                wrong.append(f"{name} is lost")
            elif store.resolve(name) != expected(worker, tag, rounds):
                wrong.append(f"{name} is another one's")
    return wrong


def main() -> None:
    """Do the job that the command line names."""
    job, path, *arguments = sys.argv[1:]
    if job == "tag":
        tag_many(Path(path), *map(int, arguments))
    elif job == "collect":
        collect_always(Path(path), *map(int, arguments))
    elif job == "tell":
        tag_and_tell(Path(path), *map(int, arguments))
    elif job == "resume":
        resume(Path(path), *arguments)
    else:
        pull_same(Path(path), *arguments)


if __name__ == "__main__":
    main()
