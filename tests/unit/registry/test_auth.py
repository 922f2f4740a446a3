"""Scopes, and the flow of challenges without a network."""

from __future__ import annotations

import pytest

from ocitool.registry.auth import _covers, merged, scope


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        (["repository:a:pull"], ("repository:a:pull",)),
        (["repository:a:pull", "repository:a:push,pull"], ("repository:a:pull,push",)),
        (["repository:b:pull", "repository:a:pull"], ("repository:b:pull", "repository:a:pull")),
        (["repository:host:5000/a:pull"], ("repository:host:5000/a:pull",)),
        (["registry:catalog:*"], ("registry:catalog:*",)),
        (["", "nonsense"], ()),
        (["repository:a\r\n:pull"], ("repository:a\\x0d\\x0a:pull",)),
    ],
)
def test_scopes_are_merged_in_order(scopes: list[str], expected: tuple[str, ...]) -> None:
    assert merged(scopes) == expected


def test_a_scope_is_written_as_token_services_want_it() -> None:
    assert scope("a/b", "pull", "push") == "repository:a/b:pull,push"


def test_a_token_is_used_for_all_that_it_covers() -> None:
    held = ("repository:a:pull,push", "repository:b:pull")
    assert _covers(held, ("repository:a:pull",))
    assert _covers(held, ("repository:b:pull", "repository:a:push"))
    assert _covers(held, ())
    assert not _covers(held, ("repository:b:push",))
    assert not _covers(held, ("repository:c:pull",))
