"""The command line: parse, one library call, render.

A command's module is loaded when the command is used. It imports click and nothing that costs time; what a
command needs it imports in its body, so that `ocitool --help` loads no command's libraries. `run` has a way
that does without click, too (see `launching`), so this module imports nothing.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any, NoReturn
else:
    import _signal

COMMANDS = {
    "bundling": ("bundle",),
    "checking": ("check",),
    "containers": ("run",),
    "differing": ("diff",),
    "images": ("pull", "push", "copy"),
    "inspection": ("inspect", "manifest", "config", "digest", "tags", "referrers"),
    "mirroring": ("mirror",),
    "registries": ("login", "logout", "tag", "delete"),
    "serving": ("serve",),
    "stores": ("store",),
    "trusting": ("attach", "fetch", "sign", "verify"),
    "unpacking": ("unpack", "repack"),
}
"""The commands that each module of this package has in its own `COMMANDS`."""


_COLLECTED_AFTER = 100_000
"""New objects after which the collector looks at them: more than loading makes, whose objects all stay."""


class _Terminated(BaseException):
    """SIGTERM: end as an interrupt does."""


def _terminate(*_: Any) -> NoReturn:
    raise _Terminated


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; every error becomes one clear sentence.

    Without `arguments` the command line is the process's own, which then is this function's, too.
    """
    code = 1
    if arguments is None:
        gc.set_threshold(_COLLECTED_AFTER)
        # Registered first, it is called last: after all else that is to be done at exit.
        atexit.register(lambda: _leave(code))
    _open_standard_streams()
    _signal.signal(_signal.SIGTERM, _terminate)
    try:
        if arguments is None and sys.argv[1:2] == ["run"]:
            _run_quickly(sys.argv[2:])
        from ocitool.cli.group import run

        code = run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        _leave(_report(error))
    except _Terminated:
        from ocitool import console

        console.say("ocitool: terminated")
        _leave(143)
    except BrokenPipeError:
        # Whoever read our output has enough of it, which is no error; Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:  # noqa: BLE001 - errors become text and a code
        code = reported(error)
    return code


def reported(error: Exception) -> int:
    """Say what went wrong, and where in the program if that is asked for; the exit code."""
    if _debugging():
        import traceback

        traceback.print_exception(error)
    return _report(error)


def _run_quickly(words: list[str]) -> None:
    """Run an image that is ready, and end the process; return where it takes more than that."""
    from ocitool.run import modules

    modules.install(__file__.rsplit("/", 3)[0])
    from ocitool.cli.launching import not_started, quick

    try:
        code = quick(words)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - as in `main`
        code = not_started(reported(error))
    if code is not None:
        _leave(code)


def _open_standard_streams() -> None:
    """Point standard streams that were closed at nothing.

    Otherwise the next file that is opened would be one of them, and what is printed would end up there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)
            if null != number:
                os.close(null)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115 - a descriptor that stays open


def _report(error: BaseException) -> int:
    from ocitool import console

    return console.report(error)


def _debugging() -> bool:
    return "--debug" in sys.argv or bool(os.environ.get("OCITOOL_DEBUG"))


def _leave(code: int) -> NoReturn:
    """Exit at once: a thread may be waiting for a peer that says nothing.

    What is on disk is as good after this as after any other kill. What the interpreter would still do is
    take itself apart, which takes it longer than many commands.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
