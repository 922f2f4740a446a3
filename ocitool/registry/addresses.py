"""Which addresses a server may send us to.

A registry names other servers: token realms, storage behind redirects, upload locations. Without care that
lets a hostile registry reach what only this machine can: a cloud's metadata service, a database on
loopback. A name proves nothing, so the rule is applied to the address that is connected to: **a server may
send us only to addresses that are no more private than its own.** What the user configured is exempt.
"""

from __future__ import annotations

import enum
import ipaddress
import socket
from typing import Final, TypeAlias

from ocitool.errors import Unreachable

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class Reach(enum.IntEnum):
    """How private an address is; each value may send to itself and to what stands above it."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    ANY = 3
    """Link-local (where metadata services live), multicast, reserved: only what the user named himself."""


# Written out, because `is_private` and `is_global` disagree with the registries of IANA on some of these.
_PRIVATE: Final = [
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10")
]
_EMBEDDING: Final = [
    # The network, and how many bits below the embedded IPv4 address there are.
    (ipaddress.ip_network("::ffff:0:0/96"), 0),  # mapped
    (ipaddress.ip_network("::ffff:0:0:0/96"), 0),  # translated
    (ipaddress.ip_network("64:ff9b::/96"), 0),  # NAT64
    (ipaddress.ip_network("2002::/16"), 80),  # 6to4
]


def reach_of(address: Address) -> Reach:
    """How private an address is; an IPv4 address inside an IPv6 one counts."""
    if isinstance(address, ipaddress.IPv6Address):
        for network, shift in _EMBEDDING:
            if address in network:
                return reach_of(ipaddress.IPv4Address((int(address) >> shift) & 0xFFFFFFFF))
    if address.is_loopback:
        return Reach.LOOPBACK
    if any(address in network for network in _PRIVATE if network.version == address.version):
        return Reach.PRIVATE
    if address.is_global and not address.is_multicast and not address.is_reserved:
        return Reach.PUBLIC
    return Reach.ANY


def resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    """The addresses of a name, families in turn so that a dead one costs little.

    Raises:
        Unreachable: it has none; `temporary` where the resolver says that it may have one later.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        temporary = getattr(error, "errno", 0) == socket.EAI_AGAIN
        raise Unreachable(
            f"the name {host} can't be resolved: {error.strerror}", temporary=temporary
        ) from error
    except UnicodeError as error:
        raise Unreachable(f"{host!r:.100} is not a host name") from error
    unique = dict.fromkeys((family, str(sockaddr[0])) for family, _, _, _, sockaddr in found)
    families: dict[socket.AddressFamily, list[tuple[socket.AddressFamily, str]]] = {}
    for family, address in unique:
        families.setdefault(family, []).append((family, address))
    longest = max(map(len, families.values()))
    return [group[i] for i in range(longest) for group in families.values() if i < len(group)]


def permitted(host: str, port: int, reach: Reach) -> list[tuple[socket.AddressFamily, str]]:
    """The addresses of a name that may be connected to.

    Raises:
        Unreachable: it has none, or one that is too private.
    """
    found = resolve(host, port)
    for _, address in found:
        check(host, address, reach)
    return found


def check(host: str, address: str, reach: Reach) -> None:
    """Refuse an address that is more private than who sent us there.

    Raises:
        Unreachable: it is.
    """
    actual = reach_of(ipaddress.ip_address(address.partition("%")[0]))
    if actual > reach:
        raise Unreachable(
            f"{host} has the address {address}, to which a server on a {reach.name.lower()} address may not"
            " send us",
            hint="a registry that names an internal address is misconfigured or hostile",
        )


def check_literal(host: str, reach: Reach) -> None:
    """As `check`, for a host that may be an address in any of its spellings; names pass.

    Raises:
        Unreachable: it is an address, and too private.
    """
    try:
        found = socket.getaddrinfo(host, 0, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return
    for _, _, _, _, sockaddr in found:
        check(host, str(sockaddr[0]), reach)
