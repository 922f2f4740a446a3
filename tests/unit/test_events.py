"""Events are plain values, so that listeners may keep, compare and send them."""

from __future__ import annotations

import dataclasses

import pytest

from ocitool.events import Advanced, Event, Finished, Noted, Planned, Retrying, Started, ignore
from ocitool.model import Descriptor

DESC = Descriptor.of("a/b", b"content")


@pytest.mark.parametrize(
    "event",
    [
        Planned((DESC,)),
        Started(DESC),
        Started(DESC, 3),
        Advanced(DESC, 5),
        Finished(DESC, "mounted"),
        Retrying("it", "lost", 1.0),
        Noted("read this"),
    ],
)
def test_an_event_is_a_frozen_value(event: Event) -> None:
    assert dataclasses.replace(event) == event
    assert hash(event) == hash(dataclasses.replace(event))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, dataclasses.fields(event)[0].name, None)
    ignore(event)
