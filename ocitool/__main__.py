"""`ocitool` and `python -m ocitool`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit."""
    from ocitool.cli import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
