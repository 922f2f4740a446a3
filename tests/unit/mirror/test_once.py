"""Answers that several threads need and that are asked for once."""

from __future__ import annotations

import pytest

from ocitool.errors import Unreachable
from ocitool.mirror.once import Once


@pytest.mark.timeout(60)
def test_an_error_is_the_answer_to_all_who_ask_and_nobody_waits_for_ever() -> None:
    once = Once[str, int]()

    def find() -> int:
        assert once.known("a") is None  # looked up while it is asked for
        raise Unreachable("the registry does not answer")

    with pytest.raises(Unreachable):
        once.get("a", find)
    with pytest.raises(Unreachable):
        once.get("a", lambda: 1)
    assert once.known("a") is None
    assert once.get("b", lambda: 1) == once.known("b") == 1
