"""What a person may type wrongly, and what is said then, before any registry is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ocitool.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("JOB_COMPLETION_INDEX", "CI_NODE_INDEX"):
        monkeypatch.delenv(variable, raising=False)
    # A registry that is asked would be found not to be there, which is another code.
    (tmp_path / "m.yaml").write_text(
        "version: 1\nsources:\n  - {image: '127.0.0.1:1/a:1', to: '127.0.0.1:1/b'}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "option", "said"),
    [
        (("apply", "--limit-rate=3Z"), "--limit-rate", "'3Z' is not a rate"),
        (("apply", "--max-delete=300%"), "--max-delete", "'300%' is neither a number nor a percentage"),
        (("apply", "--pulls=docker.io"), "--pulls", "'docker.io' is not HOST=N/TIME"),
        (("apply", "--pulls=docker.io=80"), "--pulls", "'80' is not a number of pulls in some time"),
        (("apply", "--shard=5/4"), "--shard", "there is no shard 5 of 4"),
        (("apply", "--shard=auto"), "--shard", "found neither JOB_COMPLETION_INDEX nor CI_NODE_INDEX"),
        (("apply", "--report=xml=a"), "--report", "is not text=FILE, json=FILE or junit=FILE"),
        (("apply", "--report=json=no/r.json"), "", "there is no directory no to write r.json in"),
        (("plan", "--lock=no/lock.json"), "'-o' / '--lock'", "no directory no to write lock.json in"),
    ],
)
def test_a_mistake_names_its_option_and_nothing_is_asked(
    arguments: tuple[str, ...], option: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command, *options = arguments
    assert main(["mirror", command, "m.yaml", *options]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert (f"Invalid value for {option}: " if option else "Invalid value: ") in told
    assert said in told
    assert [path.name for path in tmp_path.iterdir()] == ["m.yaml"]


def test_a_pattern_where_a_tag_is_due_is_told_how_to_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "m.yaml").write_text(
        "version: 1\nsources:\n  - {repository: a.example/a, tags: ['1.*'], to: b.example/b}\n"
    )
    assert main(["mirror", "check", "m.yaml"]) == 14
    assert "'1.*' is not a tag; patterns are named: {glob: …} or {regex: …}" in capsys.readouterr().err
