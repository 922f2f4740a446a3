"""Make one executable file of a directory of packages: make_pyz.py PACKAGES FILE.

The same packages give the same bytes.
"""

import hashlib
import io
import os
import sys
import zipfile
from pathlib import Path


def main(packages: Path, target: Path) -> None:
    """Write the file, under its name once it is whole."""
    files = (file for file in sorted(packages.rglob("*")) if file.is_file())
    names = {str(file.relative_to(packages)): file for file in files if "__pycache__" not in file.parts}
    inner = zipped({name: file.read_bytes() for name, file in names.items() if not name.startswith("bin/")})
    made_for = f"{hashlib.sha256(inner).hexdigest()[:16]} {sys.implementation.cache_tag} {os.uname().machine}"
    outer = zipped(
        {
            "__main__.py": Path(__file__).with_name("pyz_start.py").read_bytes(),
            "made-for": made_for.encode(),
            # As one file, because Python reads the list of all of an archive's files at each start.
            "packages.zip": inner,
        }
    )
    target.parent.mkdir(exist_ok=True)
    new = target.with_suffix(".new")
    new.write_bytes(b"#!/usr/bin/env python3\n" + outer)
    new.chmod(0o755)
    new.replace(target)


def zipped(content: dict[str, bytes]) -> bytes:
    """An archive of files, which says of all that they are as old as the format can tell."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, raw in content.items():
            how = zipfile.ZIP_STORED if name.endswith(".zip") else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), raw, how)
    return stream.getvalue()


main(*map(Path, sys.argv[1:]))
