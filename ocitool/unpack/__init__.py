"""Images to root file systems and back: layers applied exactly, inside their root, every digest verified.

The way back is `ocitool.unpack.repack`, which is imported by itself.
"""

from ocitool.unpack.image import UnpackOptions, UnpackReport, unpack

__all__ = ["UnpackOptions", "UnpackReport", "unpack"]
