"""Lists that come in pages: tags, repositories, referrers (distribution-spec, "Content Discovery")."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ocitool.errors import RegistryError
from ocitool.registry import headers
from ocitool.registry.origins import Origin, follow
from ocitool.registry.text import printable, redacted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocitool.registry.calls import Call
    from ocitool.registry.endpoint import Endpoint
    from ocitool.registry.responses import Answer
    from ocitool.registry.transport import Transport

PAGE: Final = 1000
"""Items asked for at once; ECR refuses more."""

_MAX_PAGES: Final = 10_000
_MAX_ITEMS: Final = 1_000_000


def pages(transport: Transport, endpoint: Endpoint, call: Call) -> Iterator[Answer]:
    """One answer after the other, along their Links.

    Raises:
        RegistryError: the Links lead in a circle, elsewhere, or on for ever.
    """
    seen: set[str] = set()
    for _ in range(_MAX_PAGES):
        answer = transport.request(endpoint, call)
        yield answer
        target = headers.next_link(answer.headers.all("link"))
        if not target or answer.status not in call.expect:
            return
        url = follow(answer.url, target, endpoint.origin, "the next page")
        if Origin.of(url) != Origin.of(answer.url):
            raise RegistryError(f"{call.what}: the next page is elsewhere, at {redacted(str(url))}")
        if str(url) in seen:
            raise RegistryError(f"{call.what}: the pages lead in a circle")
        seen.add(str(url))
        call = replace(call, target=url)
    raise RegistryError(f"{call.what}: there are more than {_MAX_PAGES} pages")


def names(transport: Transport, endpoint: Endpoint, call: Call, key: str) -> Iterator[str]:
    """The strings in one list of every page; `null` is an empty list to some registries.

    Raises:
        RegistryError: a page is not such a list, or there are too many names.
    """
    count = 0
    for answer in pages(transport, endpoint, call):
        items = answer.json(call.what).get(key) or []
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise RegistryError(f"{call.what}: {key} is not a list of names: {printable(repr(items), 80)}")
        count += len(items)
        if count > _MAX_ITEMS:
            raise RegistryError(f"{call.what}: there are more than {_MAX_ITEMS} names")
        yield from items
