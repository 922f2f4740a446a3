"""How long a container takes to start: this runtime beside runc and crun, on the same bundle, in one run.

Needs root, busybox-static, hyperfine, runc and crun::

    python benchmarks/run_start.py [RUNS]

Everything happens in a mount namespace of its own, in which /sys/fs/cgroup/unified is hidden: crun
refuses a hybrid layout. Prints medians and minima in milliseconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from support.run_bundles import MAIN, PYTHON, Bundle, make_bundle  # noqa: E402 - the path comes first

OURS = f"{PYTHON} -I -S {MAIN}"
FLOOR = f"{PYTHON} -I -S -c pass"


def _bundle(path: Path, *, seccomp: bool) -> Bundle:
    bundle = make_bundle(path, "true")
    # The lowest version whose features are used; the oldest of the three takes no later one.
    bundle.config["ociVersion"] = "1.0.2"
    if not seccomp:
        del bundle.config["linux"]["seccomp"]
    bundle.save()
    return bundle


def _measure(commands: dict[str, str], runs: int) -> dict[str, dict[str, Any]]:
    with tempfile.NamedTemporaryFile(suffix=".json") as found:
        words = ["hyperfine", "-N", "--warmup", "3", "--runs", str(runs), "--export-json", found.name]
        subprocess.run([*words, *commands.values()], check=True, capture_output=True)
        results = json.loads(Path(found.name).read_text())["results"]
    return dict(zip(commands, results, strict=True))


def main() -> None:
    """Measure and print."""
    if os.environ.get("OCITOOL_BENCHMARK_INSIDE") is None:
        hide = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
        inside = ["unshare", "--mount", "sh", "-c", hide, "sh", sys.executable, *sys.argv]
        environment = {**os.environ, "OCITOOL_BENCHMARK_INSIDE": "1"}
        raise SystemExit(subprocess.run(inside, env=environment, check=False).returncode)
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with tempfile.TemporaryDirectory() as base:
        plain = _bundle(Path(base) / "plain", seccomp=False)
        filtered = _bundle(Path(base) / "filtered", seccomp=True)
        commands = {"python -I -S -c pass": FLOOR}
        for name, bundle in (("run", plain), ("run, default seccomp profile", filtered)):
            for runtime, command in (("ocitool-runtime", OURS), ("runc", "runc"), ("crun", "crun")):
                commands[f"{runtime} {name}"] = f"{command} run --bundle {bundle.path} ocitool-benchmark"
        for name, result in _measure(commands, runs).items():
            print(f"{name:45} median {result['median'] * 1000:6.1f}  min {result['min'] * 1000:6.1f}")


if __name__ == "__main__":
    main()
