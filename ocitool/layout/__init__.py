"""Image layouts on disk, and the archives that hold one in a tar file."""

from ocitool.layout.archive import ArchiveSource, archive_format
from ocitool.layout.archivewriter import ArchiveWriter
from ocitool.layout.index import check_name
from ocitool.layout.store import LayoutStore

__all__ = ["ArchiveSource", "ArchiveWriter", "LayoutStore", "archive_format", "check_name"]
