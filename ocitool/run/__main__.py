"""`ocitool-runtime`, and `python -I -S <this file>`: the same command line, from a bare interpreter.

This file stays small because a script is compiled anew each time it is run.
"""

from __future__ import annotations

import gc
import sys
from _frozen_importlib_external import SourceFileLoader


def main() -> None:
    """Run the command line and end the process, without the interpreter's own leave-taking."""
    # A process of a few milliseconds makes no garbage worth collecting.
    gc.disable()
    place, run, _ = __file__.rsplit("/", 2)
    modules = type(sys)("modules")
    SourceFileLoader("modules", f"{place}/{run}/modules.py").exec_module(modules)
    modules.install(place.rpartition("/")[0])
    from ocitool.run.commands import run as command_line

    command_line(sys.argv[1:])


if __name__ == "__main__":
    main()
