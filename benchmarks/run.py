"""Every benchmark in turn. Each is a script of its own, which says at its top what it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SHARED = {"run.py", "measure.py", "unpack_images.py"}


def main() -> None:
    """Run them all; one that fails does not stop the others."""
    here = Path(__file__).parent
    failed = []
    for script in sorted(here.glob("*.py")):
        if script.name in SHARED or "__main__" not in script.read_text():
            continue
        print(f"\n== {script.name}", flush=True)
        if subprocess.run([sys.executable, script], check=False).returncode:
            failed.append(script.name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
