"""Programs outside of a container that it lives on: what connects it, and what serves its root file system.

The runtime that waits for the container ends them; if it was killed, `delete` does, which finds them in the
container's state.
"""

from __future__ import annotations

from .starting import stop
from .state import process_start, read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .state import State

RESET = (2, 13, 15, 25)
"""INT, PIPE, TERM, XFSZ: what this interpreter has changed, and a program is to find unchanged."""


def remember(state: State, kind: str, pid: int) -> None:
    """Write down a program that serves a container; `kind` is what it does."""
    served = state.fields.setdefault("helpers", {})
    served[kind] = [pid, (process_start(pid) or ("", 0))[1]]
    state.save()


def end_all(state: State) -> None:
    """End what serves a container; it may be nobody's child by now."""
    for pid, start in (state.fields.get("helpers") or {}).values():
        found = process_start(pid)
        if found is not None and found[1] == start:
            stop(pid)


def said(log: str, noise: tuple[str, ...] = ()) -> str:
    """The last that a program wrote into its log, but for lines with certain words; "" for nothing."""
    lines = read_file(log, "log").decode(errors="replace").splitlines()
    told = [line for line in lines if line and not any(words in line for words in noise)]
    return told[-1] if told else ""
