"""Mounts as command lines ask for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocitool.errors import InvalidReference, OciError, RunError, Unsupported
from ocitool.run import volumes


def test_mount_says_the_same_as_volume_and_tmpfs() -> None:
    bound = volumes.mount("type=bind,source=/a,target=/b,readonly")
    assert bound == volumes.volume("/a:/b:ro")
    assert volumes.mount("type=bind,src=/a,dst=/b,bind-propagation=rslave") == volumes.volume("/a:/b:rslave")
    assert volumes.mount("type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=0700") == volumes.tmpfs(
        "/t:size=1m,mode=0700"
    )


def test_a_relative_source_is_taken_from_where_the_caller_is() -> None:
    assert volumes.mount("type=bind,source=a,target=/b")["source"] == str(Path.cwd() / "a")


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("type=volume,target=/x", Unsupported, "the type volume"),
        ("source=/a,target=/x", Unsupported, "the type volume"),
        ("type=bind,target=/x", InvalidReference, "needs source and target"),
        ("type=tmpfs", InvalidReference, "needs target"),
        ("type=tmpfs,source=/a,target=/x", InvalidReference, "'source' is no property of a tmpfs mount"),
        ("type=bind,source=/a,target=/x,odd=1", InvalidReference, "'odd' is no property"),
        ("type=bind,source=/a,target=/x,bind-propagation=odd", InvalidReference, "'odd' is not a mode"),
        ("type=bind,source=/a,target=x", InvalidReference, "not an absolute path"),
    ],
)
def test_a_mount_that_is_wrong_is_told(text: str, kind: type[OciError], said: str) -> None:
    with pytest.raises(kind, match=said):
        volumes.mount(text)


@pytest.mark.parametrize("text", ["data:/x", "/x", "rel/ative:/x"])
def test_what_an_engine_would_keep_is_refused(text: str) -> None:
    with pytest.raises(Unsupported, match="that an engine keeps by name"):
        volumes.volume(text)


def test_a_host_without_a_program_for_init_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "_INIT_PROGRAMS", ("/not/there",))
    with pytest.raises(RunError, match="--init needs a program"):
        volumes.init_program()
