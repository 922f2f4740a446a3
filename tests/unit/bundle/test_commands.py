"""What a person may type wrongly, and what is said then. The commands' work is tested across processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import fixtures

from ocitool.bundle import BundleSource
from ocitool.cli import main

if TYPE_CHECKING:
    from pathlib import Path

HELLO = f"oci:{fixtures.layout()}:hello:1.0"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "b.tar"), "name at least one image"),
        (("create", "b.tar", HELLO, "--part-size", "much"), "'much' is no number of bytes"),
        (("create", "b.tar", HELLO, "--part-size", "1.5G"), "is no number of bytes"),
        (("create", "-", HELLO, "--part-size", "1G"), "a stream has no parts"),
        (("apply", "b.tar", "oci:far:tag"), "a bundle is applied to a registry or a layout"),
        (("apply", "b.tar", "alpine"), "'alpine' is not a registry"),
        (("apply", "b.tar", "far.example/Mirror"), "'Mirror' is not a repository name"),
        (("apply", "b.tar", "oci:far", "--rename", "a"), "'a' is no rule FROM=TO"),
        (("serve", "b.tar", "--listen", "here"), "--listen takes HOST:PORT"),
        (("verify", "-", "--repair-from", HELLO), "a stream can't be repaired"),
    ],
)
def test_a_mistake_is_told_and_nothing_written(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if arguments[0] != "create":
        assert main(["-q", "bundle", "create", "b.tar", HELLO]) == 0
    before = sorted(tmp_path.rglob("*"))
    assert main(["bundle", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_size_may_have_a_unit(tmp_path: Path) -> None:
    for text in ("65536", "64K", "64k", "64KiB", "64KB"):
        assert main(["-q", "bundle", "create", f"{text}.tar", HELLO, "--part-size", text]) == 0
        assert (tmp_path / f"{text}.tar.001").is_file()


def test_locations_may_stand_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").write_text(f"# what we need\n\n  {HELLO}\noci:{fixtures.layout()}:zstd:1.0\n")
    assert main(["-q", "bundle", "create", "b.tar", "--from-file", "images"]) == 0
    with BundleSource.open(tmp_path / "b.tar") as bundle:
        assert bundle.tags() == ["hello:1.0", "zstd:1.0"]
    assert main(["bundle", "create", "c.tar", "--from-file", "nowhere"]) == 10
    assert "nowhere is not there" in capsys.readouterr().err


def test_one_platform_and_no_referrers(tmp_path: Path) -> None:
    arguments = ["--platform", "linux/arm64", "--sparse", "--no-referrers"]
    assert main(["-q", "bundle", "create", "b.tar", HELLO, *arguments]) == 0
    with BundleSource.open(tmp_path / "b.tar") as bundle:
        assert [str(platform) for platform in bundle.inventory.images[0].platforms] == ["linux/arm64"]
        assert len(bundle.inventory.images) == 1
    assert main(["-q", "bundle", "verify", "b.tar"]) == 0


def test_an_image_named_by_its_digest_alone_keeps_no_name(tmp_path: Path) -> None:
    digest = fixtures.digests()["hello:1.0"]
    assert main(["-q", "bundle", "create", "b.tar", f"oci:{fixtures.layout()}@{digest}"]) == 0
    with BundleSource.open(tmp_path / "b.tar") as bundle:
        assert bundle.tags() == []
        assert digest in {str(image.root.digest) for image in bundle.inventory.images}
    assert main(["-q", "bundle", "apply", "b.tar", "oci:far"]) == 0
    assert main(["-q", "check", f"oci:far@{digest}"]) == 0


def test_check_takes_an_archive_but_cannot_repair_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-q", "bundle", "create", "b.tar", HELLO]) == 0
    assert main(["-q", "check", "oci-archive:b.tar"]) == 0
    assert main(["check", "oci-archive:b.tar", "--repair-from", HELLO]) == 2
    assert "can't be repaired in place" in capsys.readouterr().err
