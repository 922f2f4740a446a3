"""Running a bundle from this very process: a command line that has loaded little, and does nothing else.

`launch` starts a clean interpreter instead, which any process may do; that costs as much as a container.
"""

from __future__ import annotations

from .runtime import Runtime
from .starting import Settings, forget_descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable

    from .overlay import Overlay
else:
    import _signal


def run_here(
    bundle: str,
    *,
    container_id: str,
    overlay: Overlay | None = None,
    network: str = "",
    on_warning: Callable[[str], None] | None = None,
) -> int:
    """Run a bundle in the foreground, as `launch.run_bundle` does.

    The process must have one thread and no children: all that end are collected. It adopts what the container
    leaves behind, and its descriptors are marked to be closed in other programs. Signals are the container's
    meanwhile.

    Args:
        bundle: the directory with config.json, absolute.
        container_id: a name for the container.
        overlay: layers to mount as the root file system, in the container's mount namespace.
        network: what connects the container's own network namespace: "slirp4netns" or "pasta".
        on_warning: told of what was left out; by default nobody is.

    Returns:
        The program's own exit status, or 128 and the number of the signal that ended it.

    Raises:
        RunError, OciError: as `launch.run_bundle`; RunError too for a process with threads.
    """
    runtime = Runtime(warn=on_warning) if on_warning else Runtime()
    settings = Settings(bundle)
    settings.network = network
    if overlay is not None:
        overlay.engage(settings)
    forget_descriptors(runtime.kernel, settings.preserve)
    everything = _signal.valid_signals()
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, everything)
    try:
        return runtime.run(container_id, settings)
    finally:
        # What came too late for the program was not meant for whoever cleans up after it.
        while _signal.sigtimedwait(everything, 0):
            pass
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
