"""What a child tells its parent arrives whole, in whatever pieces it comes."""

from __future__ import annotations

import os

from ocitool.run import records


def test_records_that_come_in_pieces_are_put_together() -> None:
    reading, writing = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)  # by which each read gets what one write gave
    for piece in (b'{"ready"', b':true}\n{"war', b'ning":"careful"}\n{"joined":tr', b"ue}\n"):
        os.write(writing, piece)
    os.close(writing)
    warnings: list[str] = []
    reader = records.Reader(reading, "sh", warnings.append)
    assert [reader.wait(), reader.wait(), reader.wait()] == ["ready", "joined", ""]
    assert warnings == ["careful"]
    os.close(reading)


def test_a_parent_that_is_gone_is_no_reason_to_fail() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    records.write(writing, records.READY)
    os.close(writing)
