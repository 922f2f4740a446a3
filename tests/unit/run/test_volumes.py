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


def test_a_volume_without_a_source_is_the_containers_own() -> None:
    for text in ("type=volume,target=/v", "target=/v", "dst=/v,volume-nocopy=false"):
        assert volumes.mount(text) == volumes.volume("/v")
    options = volumes.mount("type=volume,target=/v,readonly,volume-nocopy")["options"]
    assert options == ["nosuid", "nodev", "ro"]


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("bind-nonrecursive", ["bind", "rprivate"]),
        ("bind-recursive=disabled,ro", ["bind", "ro", "rprivate"]),
        ("bind-recursive=writable,ro", ["rbind", "ro", "rprivate"]),
        ("bind-recursive=readonly,ro,bind-propagation=rslave", ["rbind", "rro", "rslave"]),
        ("bind-recursive=readonly", ["rbind", "rprivate"]),
    ],
)
def test_what_is_mounted_below_the_source_is_a_choice(words: str, options: list[str]) -> None:
    assert volumes.mount(f"type=bind,source=/a,target=/b,{words}")["options"] == options


def test_a_relative_source_is_taken_from_where_the_caller_is() -> None:
    assert volumes.mount("type=bind,source=a,target=/b")["source"] == str(Path.cwd() / "a")


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("type=image,target=/x", Unsupported, "the type image"),
        ("type=volume,source=a,target=/x", Unsupported, "keeps by name"),
        ("source=/a,target=/x", Unsupported, "keeps by name"),
        ("type=volume", InvalidReference, "a volume mount needs target"),
        ("type=volume,target=/x,volume-driver=local", InvalidReference, "'volume-driver' is no property"),
        ("type=volume,target=/x,volume-nocopy=maybe", InvalidReference, "volume-nocopy is true or false"),
        ("type=bind,source=/a,target=/x,bind-recursive=odd", InvalidReference, "is one of enabled, disabled"),
        ("type=bind,target=/x", InvalidReference, "needs source and target"),
        ("type=tmpfs", InvalidReference, "needs target"),
        ("type=tmpfs,source=/a,target=/x", InvalidReference, "'source' is no property of a tmpfs mount"),
        ("type=bind,source=/a,target=/x,odd=1", InvalidReference, "'odd' is no property"),
        ("type=bind,source=/a,target=/x,bind-propagation=odd", InvalidReference, "'odd' is no propagation"),
        ("type=bind,source=/a,target=/x,bind-propagation=ro", InvalidReference, "'ro' is no propagation"),
        ("type=bind,source=/a,target=/x,readonly=maybe", InvalidReference, "true or false, not 'maybe'"),
        ("type=bind,source=/a,target=/x/..", InvalidReference, "can't be the root directory"),
        ("type=bind,source=/a,target=x", InvalidReference, "not an absolute path"),
    ],
)
def test_a_mount_that_is_wrong_is_told(text: str, kind: type[OciError], said: str) -> None:
    with pytest.raises(kind, match=said):
        volumes.mount(text)


def test_a_part_with_a_comma_stands_in_quotation_marks() -> None:
    found = volumes.mount('type=bind,"source=/a,""b""",target=/x')
    assert (found["source"], found["destination"]) == ('/a,"b"', "/x")
    with pytest.raises(InvalidReference, match="mount 'type=bind"):
        volumes.mount('type=bind,"source=/a,target=/x')


def test_a_source_with_a_colon_has_a_way_to_be_named() -> None:
    assert volumes.mount("type=bind,source=/a:b,target=/x")["source"] == "/a:b"


@pytest.mark.parametrize("text", ["/a:/", "/a://", "/a:/b/.."])
def test_nothing_is_mounted_on_the_root_directory_itself(text: str) -> None:
    with pytest.raises(InvalidReference, match="can't be the root directory"):
        volumes.volume(text)


@pytest.mark.parametrize(("value", "readonly"), [("1", True), ("TRUE", True), ("0", False), ("False", False)])
def test_readonly_is_a_choice_with_a_value(value: str, *, readonly: bool) -> None:
    mount = volumes.mount(f"type=bind,source=/a,target=/b,readonly={value}")
    assert ("ro" in mount["options"]) is readonly


@pytest.mark.parametrize("text", ["data:/x", "x", "rel/ative:/x"])
def test_what_an_engine_would_keep_is_refused(text: str) -> None:
    with pytest.raises(Unsupported, match="that an engine keeps by name"):
        volumes.volume(text)


def test_a_host_without_a_program_for_init_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "_INIT_PROGRAMS", ("/not/there",))
    with pytest.raises(RunError, match="--init needs a program"):
        volumes.init_program()
