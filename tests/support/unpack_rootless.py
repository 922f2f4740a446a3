"""Unpacking as an ordinary user, with an interpreter that such a user may start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
USER = 12345
FIRST_SUBORDINATE = 700_000
SCRIPT = """
import json, sys
sys.path[:0] = [sys.argv[1] + "/tests", sys.argv[1]]
sys.dont_write_bytecode = True
from pathlib import Path
from support.unpack_images import image
from ocitool.errors import OciError
from ocitool.unpack.idmap import IdMap, Range
where, options = Path(sys.argv[2]), json.loads(sys.argv[3])
if maps := options.pop("maps", []):
    ranges = tuple(map(Range.parse, maps))
    options["ids"] = IdMap(ranges, ranges)
found = image(*(path.read_bytes() for path in sorted(where.glob("*.tar"))))

def unpack():
    report = found.unpack(where / "bundle", **options)
    return {name: getattr(report, name) for name in ("entries", "owners", "devices", "xattrs")}

def repack():
    from ocitool.content import read_manifest
    from ocitool.unpack.repack import RepackOptions
    from ocitool.unpack.repack import repack as repack_bundle
    compress = RepackOptions(compress="none")
    new = repack_bundle(found.store, found.manifest, where / "bundle", options=compress)
    if new == found.manifest:
        return {}
    with found.store.fetch(read_manifest(found.store, new).layers[-1]) as blob:
        (where / "layer").write_bytes(blob.read())
    return {"layer": str(where / "layer")}

try:
    answer = {"unpack": unpack, "repack": repack}[sys.argv[4]]()
except OciError as error:
    answer = {"error": type(error).__name__, "message": error.message}
print(json.dumps(answer))
"""


def unpack_as_user(
    where: Path,
    *layers: bytes,
    act: str = "unpack",
    delegated: bool = True,
    refused: bool = False,
    crowded: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Unpack layers below `where` as an ordinary user, in a mount namespace with accounts of its own.

    Args:
        where: a directory that every user can reach.
        layers: tar archives.
        act: "unpack", or "repack" what was unpacked of the same layers.
        delegated: whether the user has subordinate ids.
        refused: whether the helpers that map them fail, as they do in many containers.
        crowded: whether the disk for temporary files is nearly full.
        options: for `UnpackOptions`; `maps` are for users and groups of `ids` alike.
    """
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    for number, tar in enumerate(layers):
        (where / f"{number}.tar").write_bytes(tar)
    subordinate = f"tester:{FIRST_SUBORDINATE}:65536\n" if delegated else ""
    files = {
        "/etc/passwd": f"root:x:0:0::/root:/bin/sh\ntester:x:{USER}:{USER}::/:/bin/sh\n",
        "/etc/subuid": subordinate,
        "/etc/subgid": subordinate,
    }
    mounts = []
    for target, content in files.items():
        source = where / target.rpartition("/")[2]
        source.write_text(content)
        mounts.append(f"mount --bind {source} {target}")
    if crowded:
        (where / "temporary").mkdir()
        mounts.append(f"mount -t tmpfs -o size=64k,mode=1777 tmpfs {where}/temporary")
    (where / "script.py").write_text(SCRIPT)
    for helper in ("newuidmap", "newgidmap") if refused else ():
        (where / helper).write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
        (where / helper).chmod(0o755)
    shutil.chown(where, USER, USER)
    where.chmod(0o755)
    drop = f"setpriv --reuid {USER} --regid {USER} --clear-groups env -i PATH={where}:{os.environ['PATH']}"
    drop += f" TMPDIR={where}/temporary" * crowded
    run = f"{drop} /usr/bin/python3 {where}/script.py {ROOT} {where} '{json.dumps(options)}' {act}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", "\n".join((*mounts, run))],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
