"""What a container gets of its host's `/etc`: hostname, hosts and resolv.conf, as engines give them.

They are files in the container's directory, mounted over the image's own. So the program may change them,
and neither the image nor the host notices.
"""

from __future__ import annotations

import os

from ocitool.errors import InvalidReference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_LOCALHOST = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_MOST_LINKS = 8
_OWN_ADDRESS = {"slirp4netns": "10.0.2.100"}


class Names:
    """What a container is to find by name.

    Attributes:
        hosts: `NAME:ADDRESS` or `NAME=ADDRESS`, for /etc/hosts.
        domain: what its own host name is in, or "".
        servers: addresses of name servers, in place of the host's.
        search: domains in which names are looked for, in place of the host's; "." for none.
        options: of resolv.conf(5), in place of the host's.
        own_hosts: whether it gets an /etc/hosts that is made for it.
    """

    def __init__(
        self,
        hosts: Sequence[str] = (),
        domain: str = "",
        servers: Sequence[str] = (),
        search: Sequence[str] = (),
        options: Sequence[str] = (),
        *,
        own_hosts: bool = True,
    ) -> None:
        """Check them.

        Raises:
            InvalidReference: one of them is not well-formed.
        """
        self.hosts = [_host(text) for text in hosts]
        self.own_hosts = own_hosts
        self.domain = domain
        for server in servers:
            _check_address(server, f"--dns {server}")
        for word in (*search, *options):
            if not word or word.split() != [word]:
                raise InvalidReference(f"{word!r} can't be written into resolv.conf: it is not one word")
        self.resolver = {"nameserver": list(servers), "search": [*search], "options": [*options]}


def _host(text: str) -> tuple[str, str]:
    name, _, address = text.partition("=" if "=" in text else ":")
    address = address.removeprefix("[").removesuffix("]")
    if not name or name.split() != [name]:
        raise InvalidReference(f"--add-host {text!r} is not NAME:ADDRESS")
    if address == "host-gateway":
        raise InvalidReference(
            f"--add-host {text!r}: there is no bridge by which the host could be reached",
            hint="use --network host, or slirp4netns:allow_host_loopback=true, where the host is 10.0.2.2",
        )
    _check_address(address, f"--add-host {text}")
    return name, address


def _check_address(address: str, where: str) -> None:
    from ipaddress import ip_address

    try:
        ip_address(address)
    except ValueError:
        raise InvalidReference(f"{where}: {address!r} is no address") from None


def mounts(
    directory: str, trees: Sequence[str], hostname: str, network: str, names: Names
) -> list[dict[str, Any]]:
    """Write the files of a container, and say how to mount them (runtime-spec, config.md, "Mounts").

    Args:
        directory: the container's own.
        trees: what makes the root file system, the highest first; its links are followed.
        hostname: its host name.
        network: what it is connected by, as `--network` names it; "none" where it is not.
        names: what it is to find by name besides.
    """
    kind = network.partition(":")[0]
    files = {"hostname": f"{hostname}\n"}
    if names.own_hosts:
        files["hosts"] = _hosts(hostname, kind, names)
    # Without a network there is nobody to ask, and the image's own file is as good as any.
    if kind != "none" or any(names.resolver.values()):
        files["resolv.conf"] = _resolvers(kind, names)
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


def _hosts(hostname: str, kind: str, names: Names) -> str:
    if kind == "host":
        text = _of_the_host("hosts") or _LOCALHOST
    else:
        own = f"{hostname}.{names.domain} {hostname}" if names.domain else hostname
        text = f"{_LOCALHOST}{_OWN_ADDRESS.get(kind, '127.0.1.1')}\t{own}\n"
    return "".join([text, *(f"{address}\t{name}\n" for name, address in names.hosts)])


def _resolvers(kind: str, names: Names) -> str:
    """resolv.conf(5) of the host, with the helper's own name server where there is a helper.

    What was asked for takes the place of all that the host says of the same.
    """
    from ocitool.run.networks import NAMESERVERS

    wanted = {key: words for key, words in names.resolver.items() if words}
    if kind in NAMESERVERS:
        wanted.setdefault("nameserver", [NAMESERVERS[kind]])
    replaced = {*wanted, *(["domain"] if "search" in wanted else [])}
    lines = _of_the_host("resolv.conf").splitlines()
    kept = [line for line in lines if not {*line.split()[:1]} & replaced]
    kept += [f"nameserver {address}" for address in wanted.get("nameserver", ())]
    for key in ("search", "options"):
        words = wanted.get(key, [])
        if words and words != ["."]:
            kept.append(" ".join([key, *words]))
    return "\n".join([*kept, ""])


def _of_the_host(name: str) -> str:
    try:
        with open(f"/etc/{name}", encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
