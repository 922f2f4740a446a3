"""What a container gets of its host's `/etc`: hostname, hosts and resolv.conf, as engines give them.

They are files in the container's directory, mounted over the image's own. So the program may change them,
and neither the image nor the host notices.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_LOCALHOST = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_MOST_LINKS = 8
_OWN_ADDRESS = {"slirp4netns": "10.0.2.100"}


def mounts(directory: str, trees: Sequence[str], hostname: str, network: str) -> list[dict[str, Any]]:
    """Write the files of a container, and say how to mount them (runtime-spec, config.md, "Mounts").

    Args:
        directory: the container's own.
        trees: what makes the root file system, the highest first; its links are followed.
        hostname: its host name.
        network: what it is connected by, as `--network` names it; "none" where it is not.
    """
    kind = network.partition(":")[0]
    files = {"hostname": f"{hostname}\n", "hosts": _hosts(hostname, kind)}
    # Without a network there is nobody to ask, and the image's own file is as good as any.
    if kind != "none":
        files["resolv.conf"] = _resolvers(kind)
    made = []
    for name, text in files.items():
        path = f"{directory}/{name}"
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        made.append(
            {
                "destination": _followed(trees, f"/etc/{name}"),
                "type": "bind",
                "source": path,
                "options": ["bind", "rprivate", "nosuid", "nodev", "noexec"],
            }
        )
    return made


def _followed(trees: Sequence[str], path: str) -> str:
    """Where a file is in an image whose `/etc` has a link in its place, which may lead nowhere yet.

    The text alone counts: the runtime resolves the path inside the root, whatever it says.
    """
    for _ in range(_MOST_LINKS):
        target = _target(trees, path)
        if not target:
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return path


def _target(trees: Sequence[str], path: str) -> str:
    """A link's target in the highest tree that has something there; "" where that is no link."""
    for tree in trees:
        try:
            return os.readlink(f"{tree}{path}")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            break
    return ""


def _hosts(hostname: str, kind: str) -> str:
    if kind == "host":
        return _of_the_host("hosts") or _LOCALHOST
    return f"{_LOCALHOST}{_OWN_ADDRESS.get(kind, '127.0.1.1')}\t{hostname}\n"


def _resolvers(kind: str) -> str:
    """resolv.conf(5) of the host, with the helper's own name server where there is a helper."""
    from ocitool.run.networks import NAMESERVERS

    found = _of_the_host("resolv.conf")
    if kind not in NAMESERVERS:
        return found
    kept = [line for line in found.splitlines() if not line.startswith("nameserver")]
    return "\n".join([*kept, f"nameserver {NAMESERVERS[kind]}", ""])


def _of_the_host(name: str) -> str:
    try:
        with open(f"/etc/{name}", encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
