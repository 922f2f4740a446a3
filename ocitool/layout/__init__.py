"""Image layouts on disk, and the archives that hold one in a tar file."""

from ocitool.layout.store import LayoutStore

__all__ = ["LayoutStore"]
