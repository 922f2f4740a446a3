"""Pulling: one platform of an image by default, and what is there already is not asked for again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocitool.errors import NotFound
from ocitool.events import OnEvent, ignore
from ocitool.transfer import copy_graph
from ocitool.workers import JOBS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocitool.content import Source, Store
    from ocitool.model import Descriptor
    from ocitool.selection import Wanted


def pull(
    source: Source,
    store: Store,
    root: Descriptor,
    *,
    to: str,
    wanted: Wanted | None,
    jobs: int = JOBS,
    on_event: OnEvent = ignore,
) -> Descriptor:
    """Copy an image from a repository into a store.

    Args:
        source: the repository.
        store: where the image goes.
        root: the image, resolved already: it may have been verified, and its name may mean another one since.
        to: its name in the store; "" for none but its digest.
        wanted: the platform to take of it; None takes all and keeps the index.
        jobs: how many blobs may be on their way at once.
        on_event: is told what happens.

    Raises:
        NotFound: the image, or the platform, is not there.
    """
    if wanted is not None:
        root = wanted.under(source, root)
    return copy_graph(source, store, root, to=to or str(root.digest), jobs=jobs, on_event=on_event)


def ensure(store: Store, name: str, wanted: Wanted, pull_now: Callable[[], Descriptor] | None) -> Descriptor:
    """The manifest of an image in a store, pulled if the image, or its platform, is not there.

    Args:
        store: where to look.
        name: the image's name in the store.
        wanted: the platform.
        pull_now: pulls the image; None forbids that.

    Raises:
        NotFound: it is not there and may not be pulled, or is not where it would be pulled from.
    """
    try:
        return wanted.under(store, store.resolve(name))
    except NotFound as error:
        if pull_now is None:
            error.hint = "pull it first, or allow it with --pull missing"
            raise
    return wanted.under(store, pull_now())
