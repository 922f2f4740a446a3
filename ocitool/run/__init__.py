"""The runtime: containers from bundles, as the OCI runtime specification has them.

`run_bundle` runs one from any program; `ocitool-runtime` is the command line that engines call;
`ocitool.run.runtime.Runtime` is the life cycle itself, for a process without threads.

This package sees only `ocitool.errors` and the standard library, and of that only what starts fast.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .launch import run_bundle
    from .overlay import Overlay

__all__ = ["Overlay", "run_bundle"]


def __getattr__(name: str) -> object:
    """Load what is asked for: the command line's own start must not pay for what it does not use."""
    if name == "run_bundle":
        from .launch import run_bundle

        return run_bundle
    if name == "Overlay":
        from .overlay import Overlay

        return Overlay
    raise AttributeError(name)
