"""`ocitool-runtime`, and `python -I -S <this file>`: the same command line, from a bare interpreter.

This file stays small because a script is compiled anew each time it is run.
"""

import gc
import sys


def main() -> None:
    """Run the command line and end the process, without the interpreter's own leave-taking."""
    # A process of a few milliseconds makes no garbage worth collecting.
    gc.disable()
    from ocitool.run.commands import run

    run(sys.argv[1:])


if __name__ == "__main__":
    if not sys.flags.no_site:
        main()
    # Behind the standard library, so that nothing next to this package can take the place of a module of it.
    sys.path.append(__file__.rsplit("/", 3)[0])
    main()
