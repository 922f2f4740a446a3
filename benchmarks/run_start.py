"""How long a container takes to start, and what a waiting one holds, beside runc and crun in one run.

Needs root, busybox-static, hyperfine, runc and crun (`run_image.py` has the runs of an image)::

    python benchmarks/run_start.py [RUNS]

Everything happens in a mount namespace of its own, in which /sys/fs/cgroup/unified is hidden: crun
refuses a hybrid layout. Prints medians and minima in milliseconds, and each figure as a share of a peer's.
What is measured is compiled first, as an installer does it.
"""

from __future__ import annotations

import compileall
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from support.run_bundles import MAIN, PYTHON, Bundle, make_bundle

OURS = f"{PYTHON} -I -S {MAIN}"
FLOOR = f"{PYTHON} -I -S -c pass"
ROUNDS = 5
RUNTIMES = {"ocitool-runtime": OURS, "runc": "runc", "crun": "crun"}
OCITOOL = str(Path(sys.executable).parent / "ocitool")
# As installers write it: with all that is installed beside it, where OURS needs the standard library alone.
SCRIPT = f"#!{sys.executable}\nimport sys\nfrom ocitool.run.__main__ import main\nsys.exit(main())\n"


def _bundle(path: Path, *, seccomp: bool) -> Bundle:
    bundle = make_bundle(path, "true")
    # The lowest version whose features are used; the oldest of the three takes no later one.
    bundle.config["ociVersion"] = "1.0.2"
    if not seccomp:
        del bundle.config["linux"]["seccomp"]
    bundle.save()
    return bundle


def _measure(commands: dict[str, str], runs: int) -> dict[str, list[float]]:
    """The seconds of each command; in several rounds, for a machine may be slower by half a minute later."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.NamedTemporaryFile(suffix=".json") as found:
        words = [
            "hyperfine",
            "-N",
            "--warmup",
            "1",
            "--runs",
            str(runs // ROUNDS),
            "--export-json",
            found.name,
        ]
        for _ in range(ROUNDS):
            subprocess.run([*words, *commands.values()], check=True, capture_output=True)
            results = json.loads(Path(found.name).read_text())["results"]
            for name, result in zip(commands, results, strict=True):
                times[name] += result["times"]
    return times


def _do(command: str, *words: str) -> None:
    """Run a command whose output is nobody's: a container keeps it open."""
    subprocess.run(
        [*command.split(), *words], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


def _print(times: dict[str, list[float]], peers: tuple[str, ...]) -> None:
    """One line for each command; ours with its share of each peer's median, by the last word of the names."""
    for name, own in times.items():
        tool, _, what = name.partition(" ")
        shares = [
            f"{median(own) / median(times[f'{peer} {what}']):.2f} x {peer}"
            for peer in peers
            if tool.startswith("ocitool") and f"{peer} {what}" in times
        ]
        print(f"{name:55} median {median(own) * 1000:6.1f}  min {min(own) * 1000:6.1f}  {', '.join(shares)}")


def _runs(base: Path, runs: int) -> None:
    commands = {"python -I -S -c pass": FLOOR}
    installed = base / "ocitool-runtime"
    installed.write_text(SCRIPT)
    installed.chmod(0o755)
    for what, seccomp in (("run", False), ("run, default seccomp profile", True)):
        bundle = _bundle(base / f"seccomp-{seccomp}", seccomp=seccomp)
        for runtime, command in RUNTIMES.items():
            commands[f"{runtime} {what}"] = f"{command} run --bundle {bundle.path} ocitool-benchmark"
        commands[f"ocitool-runtime-installed {what}"] = (
            f"{installed} run --bundle {bundle.path} ocitool-benchmark"
        )
        commands[f"ocitool {what}"] = f"{OCITOOL} run {bundle.path}"
    _print(_measure(commands, runs), ("runc", "crun"))


def _exec(base: Path, runs: int) -> None:
    """A further process in a running container, and the three commands by which an engine runs one."""
    bundle = _bundle(base / "sleeping", seccomp=False)
    bundle.config["process"]["args"] = ["sleep", "300"]
    bundle.save()
    commands = {}
    for runtime, command in RUNTIMES.items():
        name = f"ocitool-benchmark-{runtime}"
        _do(command, "create", "--bundle", str(bundle.path), name)
        _do(command, "start", name)
        commands[f"{runtime} exec"] = f"{command} exec {name} true"
    try:
        _print(_measure(commands, runs), ("runc", "crun"))
    finally:
        for runtime, command in RUNTIMES.items():
            name = f"ocitool-benchmark-{runtime}"
            _do(command, "delete", "--force", name)
    short = _bundle(base / "short", seccomp=False)
    commands = {}
    for runtime, command in RUNTIMES.items():
        script = base / f"three-{runtime}"
        script.write_text(
            f"#!/bin/sh -e\n{command} create --bundle {short.path} three </dev/null >/dev/null\n"
            f"{command} start three\nuntil {command} delete three 2>/dev/null; do :; done\n"
        )
        script.chmod(0o755)
        commands[f"{runtime} create, start, delete"] = str(script)
    _print(_measure(commands, runs), ("runc", "crun"))


def _memory(base: Path) -> None:
    """What the first process of a created container holds, in KiB.

    Two containers of each runtime are there, so that what they share is not counted as either's own.
    """
    bundle = _bundle(base / "waiting", seccomp=False)
    for runtime, command in RUNTIMES.items():
        names = [f"ocitool-benchmark-{runtime}-{number}" for number in range(2)]
        try:
            for name in names:
                _do(command, "create", "--bundle", str(bundle.path), name)
            state = subprocess.run([*command.split(), "state", names[1]], check=True, capture_output=True)
            rollup = Path(f"/proc/{json.loads(state.stdout)['pid']}/smaps_rollup").read_text()
        finally:
            for name in names:
                _do(command, "delete", "--force", name)
        sizes = {key: int(size) for key, size in re.findall(r"^(\w+): +(\d+) kB$", rollup, re.MULTILINE)}
        private = sizes["Private_Clean"] + sizes["Private_Dirty"]
        print(f"{runtime + ' created, memory':55} resident {sizes['Rss']} KiB, private {private} KiB")


def enter_namespace() -> None:
    """Go on in a mount namespace in which the second half of a hybrid cgroup layout is not to be seen."""
    if os.environ.pop("OCITOOL_BENCHMARK_INSIDE", None) is None:
        hide = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
        inside = ["unshare", "--mount", "sh", "-c", hide, "sh", sys.executable, *sys.argv]
        environment = {**os.environ, "OCITOOL_BENCHMARK_INSIDE": "1"}
        raise SystemExit(subprocess.run(inside, env=environment, check=False).returncode)


def main() -> None:
    """Measure and print."""
    enter_namespace()
    compileall.compile_dir(Path(MAIN).parents[1], quiet=1)
    subprocess.run([PYTHON, "-m", "compileall", "-q", str(Path(MAIN).parents[1])], check=True)
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        _runs(base, runs)
        _exec(base, runs)
        _memory(base)


if __name__ == "__main__":
    main()
