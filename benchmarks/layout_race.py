"""How many names are lost when several processes write to one image layout, tool by tool.

    python benchmarks/layout_race.py [PROCESSES] [TAGS]

Each process copies one small image under names of its own, one command after the other. Every command has
to succeed, and every name that was written has to be there in the end.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

COMMANDS = {
    "ocitool copy": f"{sys.executable} -m ocitool --quiet copy oci:{{image}}:a oci:{{target}}:{{name}}",
    "skopeo copy": "skopeo copy -q oci:{image}:a oci:{target}:{name}",
    "umoci tag": "umoci tag --image {target}:a {name}",
    "oras copy": "oras cp --from-oci-layout --to-oci-layout {image}:a {target}:{name}",
}


def names(layout: Path) -> set[str]:
    """The names that a layout has."""
    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    return {entry.get("annotations", {}).get("org.opencontainers.image.ref.name", "") for entry in entries}


def race(command: str, scratch: Path, image: Path, processes: int, tags: int) -> str:
    """Run one tool against itself."""
    target = scratch / "target"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(image, target)

    def work(worker: int) -> list[str]:
        done = []
        for tag in range(tags):
            name = f"w{worker}-t{tag}"
            words = command.format(image=image, target=target, name=name).split()
            run = subprocess.run(words, capture_output=True, check=False)
            if run.returncode == 0:
                done.append(name)
        return done

    start = time.perf_counter()
    with ThreadPoolExecutor(processes) as pool:
        written = [name for names in pool.map(work, range(processes)) for name in names]
    seconds = time.perf_counter() - start
    try:
        lost = len(set(written) - names(target))
    except ValueError:
        return f"index.json is destroyed, and every name with it; {seconds:.1f} s"
    failed = processes * tags - len(written)
    return f"{lost} of {len(written)} names lost, {failed} commands failed; {seconds:.1f} s"


def main() -> None:
    """Let each tool that is installed race."""
    processes, tags = (int(argument) for argument in (sys.argv[1:] or ("8", "20")))
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        fixtures = Path(__file__).parents[1] / "fixtures" / "images"
        subprocess.run([sys.executable, fixtures / "build.py"], check=True, stdout=subprocess.DEVNULL)
        image = scratch / "image"
        source = f"oci:{fixtures / 'layout'}:layers:1.0"
        subprocess.run(
            [sys.executable, "-m", "ocitool", "--quiet", "copy", source, f"oci:{image}:a"], check=True
        )
        for name, command in COMMANDS.items():
            if name.startswith("ocitool") or shutil.which(name.split()[0]):
                print(f"{name:14} {race(command, scratch, image, processes, tags)}")


if __name__ == "__main__":
    main()
