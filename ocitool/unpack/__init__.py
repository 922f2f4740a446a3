"""Images to root file systems and back: layers applied exactly, inside their root, every digest verified.

The way back is `ocitool.unpack.repack`, which is imported by itself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocitool.unpack.image import UnpackOptions, UnpackReport, unpack

__all__ = ["UnpackOptions", "UnpackReport", "unpack"]


def __getattr__(name: str) -> object:
    """Load what is asked for: who runs what is unpacked already must not pay for unpacking."""
    if name in __all__:
        from ocitool.unpack import image

        return getattr(image, name)
    raise AttributeError(name)
