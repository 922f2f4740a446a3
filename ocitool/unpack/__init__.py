"""Images to root file systems: layers applied exactly, inside their root, with every digest verified."""

from ocitool.unpack.image import UnpackOptions, UnpackReport, unpack

__all__ = ["UnpackOptions", "UnpackReport", "unpack"]
