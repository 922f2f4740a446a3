"""`ocitool-runtime`, and `python -I -S <this file>`: the same command line, from a bare interpreter.

This file stays small because a script is compiled anew each time it is run.
"""

from __future__ import annotations

import gc
import sys
from _frozen_importlib_external import SourceFileLoader, spec_from_file_location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

PLACE = __file__.rsplit("/", 3)[0]
PACKAGES = ("ocitool", "ocitool.run")


class Finder:
    """Finds the modules of this package where they are known to be: a search costs a tenth of our start."""

    @staticmethod
    def find_spec(name: str, _path: object, _target: object = None) -> ModuleSpec | None:
        """What the import system asks of a finder."""
        if not name.startswith("ocitool"):
            return None
        file = f"{PLACE}/{name.replace('.', '/')}"
        file, below = (f"{file}/__init__.py", [file]) if name in PACKAGES else (f"{file}.py", None)
        loader = SourceFileLoader(name, file)
        return spec_from_file_location(name, file, loader=loader, submodule_search_locations=below)


def main() -> None:
    """Run the command line and end the process, without the interpreter's own leave-taking."""
    # A process of a few milliseconds makes no garbage worth collecting.
    gc.disable()
    # Before the interpreter's own, so that nothing elsewhere can take the place of a module of ours.
    sys.meta_path.insert(0, Finder)
    from ocitool.run.commands import run

    run(sys.argv[1:])


if __name__ == "__main__":
    main()
