"""What people and CI logs see."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ocitool import console, mediatypes
from ocitool.console import Progress
from ocitool.errors import IntegrityError, NotFound, RegistryError
from ocitool.events import Advanced, Event, Finished, Noted, Planned, Retrying, Started
from ocitool.model import Descriptor

LAYER = Descriptor.of(mediatypes.OCI_LAYER_GZIP, b"x" * (3 << 20))
EVENTS: tuple[Event, ...] = (
    Planned((LAYER,)),
    Started(LAYER, 1 << 20),
    Advanced(LAYER, 1 << 20),
    Retrying(str(LAYER.digest), "the connection was lost", 2.0),
    Noted("the registry warns: this tag goes away"),
    Finished(LAYER, "copied"),
    Finished(LAYER, "skipped"),
)


def _show(progress: Progress) -> None:
    listener = console.listener(progress)
    for event in EVENTS:
        listener(event)
    listener.close()


def test_plain_progress_is_one_line_for_each_thing_that_happened(capsys: pytest.CaptureFixture[str]) -> None:
    _show(Progress.PLAIN)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"resuming sha256:{LAYER.digest.short} at 1.0 MiB",
        f"trying sha256:{LAYER.digest.short} again in 2.0 s: the connection was lost",
        "the registry warns: this tag goes away",
        f"copied sha256:{LAYER.digest.short} (3.0 MiB)",
        "1 there already",
    ]


@pytest.mark.parametrize("progress", [Progress.PLAIN, Progress.BAR, Progress.JSON, Progress.NONE])
def test_nothing_is_said_after_the_end(capsys: pytest.CaptureFixture[str], progress: Progress) -> None:
    listener = console.listener(progress)
    listener.close()
    capsys.readouterr()
    for event in EVENTS:
        listener(event)
    assert capsys.readouterr().err == ""


def test_a_long_transfer_says_how_far_it_is_though_nothing_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((0.0, 3.0, 20.0, 20.0))
    # Its own clock, and not everybody's: servers of other tests may be running.
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    listener = console.listener(Progress.PLAIN)
    listener(Planned((LAYER,)))
    listener(Advanced(LAYER, 1 << 20))
    listener(Advanced(LAYER, 1 << 20))
    assert capsys.readouterr().err.splitlines() == ["2.0 MiB of 3.0 MiB"]


def test_json_progress_is_one_versioned_object_in_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    _show(Progress.JSON)
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert [line["event"] for line in lines] == [type(event).__name__.lower() for event in EVENTS]
    assert {line["version"] for line in lines} == {1}
    assert lines[1] == {
        "version": 1,
        "event": "started",
        "digest": str(LAYER.digest),
        "size": LAYER.size,
        "mediaType": LAYER.media_type,
        "offset": 1 << 20,
    }


def test_quiet_says_only_what_a_person_must_know(capsys: pytest.CaptureFixture[str]) -> None:
    _show(Progress.NONE)
    assert capsys.readouterr().err == "the registry warns: this tag goes away\n"


def test_bars_leave_the_terminal_as_it_was_and_stdout_empty(capsys: pytest.CaptureFixture[str]) -> None:
    _show(Progress.BAR)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"copied sha256:{LAYER.digest.short}" in err


def test_progress_is_plain_where_stderr_is_no_terminal() -> None:
    assert type(console.listener(Progress.AUTO)) is type(console.listener(Progress.PLAIN))


def test_rc_17_what_strangers_write_can_not_move_the_cursor() -> None:
    hostile = "a\x1b[2Jb\rc\nd\u202ee\u200bf\x9bg"
    shown = console.printable(hostile)
    assert shown == r"a\x1b[2Jb\rc\nd\u202ee\u200bf\x9bg"
    assert console.printable("plain, ümlaut, 日本") == "plain, ümlaut, 日本"
    assert console.printable("half \udce9") == r"half \udce9"


@pytest.mark.parametrize(
    ("terminal", "shown"), [(False, b"bundle\xff\x1b[2J\n"), (True, b"bundle\\udcff\\x1b[2J\n")]
)
def test_a_path_is_its_own_bytes_for_a_program_and_moves_no_cursor_on_a_terminal(
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    *,
    terminal: bool,
    shown: bytes,
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    console.result_path(Path(os.fsdecode(b"bundle\xff\x1b[2J")))
    assert capfdbinary.readouterr().out == shown


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (61 << 20, "61.0 MiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_sizes_read_as_people_say_them(count: int, text: str) -> None:
    assert console.size(count) == text


def test_an_error_is_one_sentence_its_notes_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    error = NotFound("tag 9 is not in registry.example/app", hint="list the tags with ocitool tags")
    error.add_note("while pulling registry.example/app:9")
    assert console.report(error) == 10
    assert capsys.readouterr().err.splitlines() == [
        "ocitool: tag 9 is not in registry.example/app",
        "  while pulling registry.example/app:9",
        "  list the tags with ocitool tags",
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (IntegrityError("x"), 13),
        (RegistryError("x"), 12),
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device", "/data/blob"), 1),
        (ValueError("x"), 1),
    ],
)
def test_every_error_has_its_code_and_no_traceback(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.report(error) == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_full_disk_is_told_with_the_place(capsys: pytest.CaptureFixture[str]) -> None:
    console.report(OSError(28, "No space left on device", "/data/blob"))
    assert capsys.readouterr().err == "ocitool: No space left on device: /data/blob\n"
