"""Every command that needs no registry: its result, its exit code, its one sentence when it fails."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

import click
import pytest
from support.fixtures import digests, layout
from support.layout_content import put

import ocitool.cli
from ocitool import __version__
from ocitool.cli import COMMANDS
from ocitool.cli.group import cli as group
from ocitool.layout import LayoutStore
from ocitool.layout.index import IMAGE_NAME, REF_NAME

if TYPE_CHECKING:
    from support.command import Cli


def test_the_version_is_one_line(cli: Cli) -> None:
    assert cli("--version").out == f"ocitool {__version__}\n"


def test_every_command_has_a_line_of_help(cli: Cli) -> None:
    listed = cli("--help").out
    for name in (name for names in COMMANDS.values() for name in names):
        assert _command(name).help, name
        assert f"\n  {name} " in listed
    assert "..." not in listed.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("before", "behind", "told"),
    [
        ((), (), "copied sha256:"),
        (("--quiet",), (), ""),
        ((), ("-q",), ""),
        ((), ("--progress", "json"), '{"version"'),
        (("--progress", "json"), ("--progress", "plain"), "copied sha256:"),
        (("--quiet",), ("--progress", "json"), ""),
    ],
)
def test_what_is_told_is_chosen_before_the_command_or_behind_it(
    cli: Cli, images: str, tmp_path: Path, before: tuple[str, ...], behind: tuple[str, ...], told: str
) -> None:
    done = cli(*before, "copy", f"{images}:hello:1.0", f"oci:{tmp_path}/copy", *behind)
    assert done.err.startswith(told)
    assert bool(done.err) == bool(told)
    assert done.result == digests()["hello:1.0"]


def test_every_command_takes_the_options_about_what_is_told(cli: Cli) -> None:
    for name in ("store ls", "bundle inspect", "mirror check", "serve", "login"):
        assert "--quiet" in cli(*name.split(), "--help").out


@pytest.mark.parametrize(
    ("command", "lacking"),
    [
        ("login", {"--store", "--registry-token", "--no-creds"}),
        ("logout", {"--store", "--registry-token", "--no-creds", "--username", "--tls-verify", "--ca-file"}),
    ],
)
def test_an_option_that_would_do_nothing_is_not_offered(cli: Cli, command: str, lacking: set[str]) -> None:
    offered = set(re.findall(r"--[a-z-]+", cli(command, "--help").out))
    assert "--authfile" in offered
    assert not offered & lacking


def _command(name: str) -> click.Command:
    found = group.get_command(click.Context(group), name)
    assert found is not None, name
    return found


@pytest.mark.parametrize("module", [name for _, name, _ in iter_modules(ocitool.cli.__path__)])
def test_the_command_line_knows_every_command_of_every_module(module: str) -> None:
    commands = getattr(import_module(f"ocitool.cli.{module}"), "COMMANDS", ())
    assert tuple(command.name for command in commands) == COMMANDS.get(module, ())


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["pull"], ["pull", "--jobs", "many", "a"], ["--nonsense"]]
)
def test_a_wrong_command_line_is_told_and_exits_2(cli: Cli, arguments: list[str]) -> None:
    assert "Usage:" in cli(*arguments, code=2).err


@pytest.mark.parametrize("location", ["UPPER", "a b", "oci:", "x@sha256:beef"])
@pytest.mark.parametrize("command", ["pull", "inspect", "digest", "unpack"])
def test_a_wrong_location_is_one_sentence_and_exits_2(
    cli: Cli, command: str, location: str, tmp_path: Path
) -> None:
    more = [tmp_path / "bundle"] if command == "unpack" else []
    told = cli(command, location, *more, code=2)
    assert told.err.startswith("ocitool: ")
    assert told.out == ""


def test_what_is_not_in_a_layout_exits_10_and_the_names_are_told(cli: Cli, images: str) -> None:
    told = cli("digest", f"{images}:nothing:9", code=10)
    assert "nothing:9" in told.err
    assert "hello:1.0" in told.err


def test_a_layout_that_is_not_there_exits_10_and_is_not_made(cli: Cli, tmp_path: Path) -> None:
    cli("digest", f"oci:{tmp_path}/none:1", code=10)
    assert not (tmp_path / "none").exists()


def test_documents_are_printed_byte_for_byte(cli: Cli, images: str) -> None:
    location = f"{images}:layers:1.0"
    manifest = cli("manifest", location).out.encode()
    config = cli("config", location).out.encode()
    assert "sha256:" + hashlib.sha256(manifest).hexdigest() == digests()["layers:1.0"]
    assert "sha256:" + hashlib.sha256(config).hexdigest() == json.loads(manifest)["config"]["digest"]


def test_digest_takes_the_platform_that_is_asked_for(cli: Cli, images: str) -> None:
    location = f"{images}:hello:1.0"
    index = json.loads(cli("manifest", location).out)
    assert cli("digest", location).result == digests()["hello:1.0"]
    for entry in index["manifests"]:
        platform = f"{entry['platform']['os']}/{entry['platform']['architecture']}"
        assert cli("digest", "--platform", platform, location).result == entry["digest"]


def test_inspect_says_the_same_to_people_and_programs(cli: Cli, images: str) -> None:
    described = json.loads(cli("inspect", "--format", "json", f"{images}:layers:1.0").out)
    text = cli("inspect", f"{images}:layers:1.0").out
    assert described["digest"] == digests()["layers:1.0"]
    assert described["config"]["Entrypoint"] == ["/bin/tool"]
    assert len(described["layers"]) == 3
    for said in (described["digest"], described["platform"], *described["config"]["Env"]):
        assert said in text


def test_inspect_of_an_index_lists_its_platforms(cli: Cli, images: str) -> None:
    text = cli("inspect", f"{images}:hello:1.0").out
    assert "  - platform: linux/amd64\n" in text
    assert "  - platform: linux/arm64\n" in text


def test_tags_lists_the_names_in_a_layout(cli: Cli, images: str) -> None:
    names = cli("tags", images).out.split()
    assert set(digests()) & set(names) == {name for name in digests() if name in names}
    assert json.loads(cli("tags", "--format", "json", images).out) == names
    assert "hello:1.0" in names


def test_referrers_lists_what_refers_to_an_image(cli: Cli, images: str) -> None:
    listed = json.loads(cli("referrers", "--format", "json", f"{images}:hello:1.0").out)
    assert listed
    kind = listed[0]["artifactType"]
    assert kind in cli("referrers", f"{images}:hello:1.0").out
    assert (
        cli("referrers", "--artifact-type", "application/none", "--format", "json", f"{images}:hello:1.0").out
        == "[]\n"
    )


def test_a_copy_keeps_the_index_and_its_digest(cli: Cli, images: str, tmp_path: Path) -> None:
    assert cli("copy", f"{images}:hello:1.0", f"oci:{tmp_path}/copy").result == digests()["hello:1.0"]
    assert cli("digest", f"oci:{tmp_path}/copy:hello:1.0").result == digests()["hello:1.0"]


@pytest.mark.parametrize(
    ("source", "target", "name"),
    [
        ("oci:one", "oci:two", "app:1"),
        ("oci:one", "docker-archive:two.tar", "app:1"),
        ("docker-archive:named.tar", "oci:two", "example.test/app:1"),
        ("docker-archive:named.tar", "docker-archive:two.tar", "example.test/app:1"),
        ("oci:one", "oci:two:given", "given"),
    ],
)
def test_the_only_image_of_a_place_keeps_its_name(
    cli: Cli,
    images: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    target: str,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    cli("copy", f"{images}:layers:1.0", "oci:one:app:1")
    cli("copy", f"{images}:layers:1.0", "docker-archive:named.tar:example.test/app:1")
    cli("copy", source, target)
    assert cli("tags", target.removesuffix(":given")).out == f"{name}\n"


@pytest.mark.parametrize("source", ["oci:one", "oci-archive:one.tar", "docker-archive:one.tar"])
@pytest.mark.parametrize("target", ["oci:two", "oci-archive:two.tar", "docker-archive:two.tar"])
def test_the_only_image_of_a_place_keeps_all_its_names_unless_one_is_asked_for(
    cli: Cli, images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    both = ["example.test/app:1", "example.test/app:latest"]
    for name in both:
        cli("copy", f"{images}:layers:1.0", f"oci:one:{name}")
    if source != "oci:one":
        cli("copy", "oci:one", source)
    cli("copy", source, target)
    assert cli("tags", target).out.split() == both
    assert cli("digest", f"{target}:{both[1]}").result == digests()["layers:1.0"]
    cli("copy", f"{source}:{both[1]}", f"{target}.named")
    assert cli("tags", f"{target}.named").out.split() == both[1:]


def test_names_whose_short_forms_coincide_stay_apart_in_a_copy(cli: Cli, images: str, tmp_path: Path) -> None:
    """As containerd writes them: `1` and `example.test/a:1`."""
    cli("copy", f"{images}:layers:1.0", f"oci:{tmp_path}/one:x")
    index = tmp_path / "one" / "index.json"
    [entry] = json.loads(index.read_text())["manifests"]
    entries = [
        {**entry, "annotations": {REF_NAME: "1", IMAGE_NAME: f"example.test/{name}:1"}} for name in "ab"
    ]
    index.write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    cli("copy", f"oci:{tmp_path}/one", f"oci:{tmp_path}/two")
    assert cli("tags", f"oci:{tmp_path}/two").out.split() == ["example.test/a:1", "example.test/b:1"]


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_the_only_image_is_found_beside_signatures_that_a_tag_connects_with_it(
    cli: Cli, images: str, tmp_path: Path, kind: str
) -> None:
    tag = f"{digests()['layers:1.0'].replace(':', '-')}.sig"
    cli("copy", f"{images}:layers:1.0", f"oci:{tmp_path}/one:example.test/app:1")
    # Looked at by its content, cosign's is an image.
    cli("copy", f"{images}:zstd:1.0", f"oci:{tmp_path}/one:example.test/app:{tag}")
    two = f"{kind}:{tmp_path}/two"
    cli("copy", "--referrers", f"oci:{tmp_path}/one", two)
    assert cli("tags", two).out.split() == ["example.test/app:1", f"example.test/app:{tag}"]
    assert cli("digest", two).result == digests()["layers:1.0"]
    if kind != "oci":
        with tarfile.open(tmp_path / "two") as archive:
            (image,) = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        assert image["RepoTags"] == ["example.test/app:1"]


def test_a_copy_of_some_platforms_is_a_new_index_and_says_so(cli: Cli, images: str, tmp_path: Path) -> None:
    one = ("--platform", "linux/arm64", f"{images}:hello:1.0", f"oci:{tmp_path}/copy:arm")
    copied = cli("copy", *one)
    assert copied.result != digests()["hello:1.0"]
    assert "left platforms out" in copied.err
    entries = json.loads(cli("manifest", f"oci:{tmp_path}/copy:arm").out)["manifests"]
    assert [entry["platform"]["architecture"] for entry in entries] == ["arm64"]
    refused = cli("copy", "--preserve-digests", *one, code=17)
    assert "--sparse" in refused.err


def test_a_sparse_copy_keeps_the_digest_and_leaves_the_others_out(
    cli: Cli, images: str, tmp_path: Path
) -> None:
    location = f"oci:{tmp_path}/copy:sparse"
    copied = cli("copy", "--sparse", "--platform", "linux/arm64", f"{images}:hello:1.0", location)
    assert copied.result == digests()["hello:1.0"]
    cli("config", "--platform", "linux/arm64", location)
    cli("config", "--platform", "linux/amd64", location, code=10)


def test_an_archive_goes_through_a_pipe_and_the_digest_to_stderr(
    cli: Cli, images: str, tmp_path: Path
) -> None:
    archive = tmp_path / "layers.tar"
    cli("copy", f"{images}:layers:1.0", f"oci-archive:{archive}:layers")
    assert cli("digest", f"{archive}").result == digests()["layers:1.0"]
    assert cli("digest", f"oci-archive:{archive}:layers").result == digests()["layers:1.0"]


def test_a_failed_copy_leaves_no_archive(cli: Cli, images: str, tmp_path: Path) -> None:
    cli("copy", f"{images}:nothing:1", f"oci-archive:{tmp_path}/none.tar:x", code=10)
    assert not list(tmp_path.glob("*.tar*"))


def test_names_are_given_and_taken_in_a_layout(cli: Cli, images: str, tmp_path: Path) -> None:
    where = f"oci:{tmp_path}/names"
    digest = cli("copy", f"{images}:layers:1.0", f"{where}:one").result
    assert cli("tag", f"{where}:one", "two").result == digest
    assert cli("tags", where).out.split() == ["one", "two"]
    cli("delete", f"{where}:one")
    assert cli("tags", where).out.split() == ["two"]
    cli("delete", f"{where}:one", code=10)
    assert cli("delete", "--digest", f"{where}:two").result == digest
    assert cli("tags", where).out == ""


def test_the_store_is_listed_checked_and_cleaned(cli: Cli, images: str, tmp_path: Path) -> None:
    cli("copy", f"{images}:layers:1.0", "store:example.test/layers:1.0")
    listed = json.loads(cli("store", "ls", "--format", "json").out)
    assert [image["names"] for image in listed["images"]] == [["example.test/layers:1.0"]]
    assert "example.test/layers:1.0" in cli("store", "ls").out
    assert cli("store", "check").out == ""
    cli("delete", "store:example.test/layers:1.0")
    planned = cli("store", "gc")
    assert "add --delete" in planned.err
    assert len(planned.out.splitlines()) == 5
    assert cli("store", "gc", "--delete").out == planned.out
    assert cli("store", "gc").out == ""


@pytest.mark.parametrize("name", ["b.tar", "b.tar.001"])
def test_a_bundle_is_not_served_as_a_layout_that_is_yet_to_be_made(
    cli: Cli, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).touch()
    refused = cli("serve", tmp_path / "b.tar", code=2)
    assert "b.tar is no directory; `ocitool bundle serve` serves a bundle" in refused.err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_collection_says_what_processes_at_work_hold_back(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "layout"
    writer = LayoutStore(path)
    put(writer, b"x" * 2048)
    held = cli("store", "gc", "--store", path, "--delete")
    assert held.out == ""
    assert "2.0 KiB more stay while processes that are at work rely on them" in held.err
    assert json.loads(cli("store", "gc", "--store", path, "--format=json").out)["held"] == 2048
    writer.close()
    freed = cli("store", "gc", "--store", path, "--delete")
    assert "more stay" not in freed.err
    assert "2.0 KiB deleted" in freed.err


def test_im_03_a_damaged_blob_is_named_by_check_and_refused_by_whoever_reads_it(
    cli: Cli, images: str, tmp_path: Path
) -> None:
    cli("copy", f"{images}:layers:1.0", f"oci:{tmp_path}/broken:1")
    layer = json.loads(cli("manifest", f"oci:{tmp_path}/broken:1").out)["layers"][0]["digest"]
    blob = tmp_path / "broken" / "blobs" / "sha256" / layer.removeprefix("sha256:")
    size = blob.stat().st_size
    blob.unlink()  # it may be a link to the fixture's own
    blob.write_bytes(b"\0" * size)
    assert layer.removeprefix("sha256:") in cli("store", "check", "--store", tmp_path / "broken", code=13).out
    refused = cli("unpack", f"oci:{tmp_path}/broken:1", tmp_path / "bundle", code=13)
    assert layer in refused.err
    assert not (tmp_path / "bundle").exists()
    assert layer in cli("copy", f"oci:{tmp_path}/broken:1", f"oci:{tmp_path}/copy:1", code=13).err


def test_a_check_says_of_every_fault_whether_it_is_repaired_and_if_not_why(
    cli: Cli, images: str, tmp_path: Path
) -> None:
    where = f"oci:{tmp_path}/broken:1"
    cli("copy", f"{images}:layers:1.0", where)
    layer = json.loads(cli("manifest", where).out)["layers"][0]["digest"]
    (tmp_path / "broken" / "blobs" / "sha256" / layer.removeprefix("sha256:")).unlink()
    cli("copy", f"{images}:hello:1.0", f"oci:{tmp_path}/other:1")

    refused = cli("check", where, "--repair-from", f"oci:{tmp_path}/other:1", code=13)
    assert "(repaired)" not in refused.out
    assert "can't be repaired: " in refused.err
    assert f"{layer} is not in the layout {tmp_path}/other" in refused.err

    mended = cli("check", where, "--repair-from", f"{images}:layers:1.0")
    assert [line.endswith("(repaired)") for line in mended.out.splitlines()] == [True]
    assert "can't be repaired" not in mended.err
    assert cli("check", where).out == ""


def test_a_layout_below_a_file_is_refused_with_the_file_s_name(cli: Cli, images: str, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    told = cli("copy", f"{images}:hello:1.0", f"oci:{tmp_path}/taken/app/layout:1", code=17).err
    assert f"the layout {tmp_path}/taken/app/layout can't be there: {tmp_path}/taken is a file" in told


def test_a_bundle_is_not_written_over(cli: Cli, images: str, tmp_path: Path) -> None:
    assert cli("unpack", f"{images}:layers:1.0", tmp_path / "bundle").result == str(tmp_path / "bundle")
    cli("unpack", f"{images}:layers:1.0", tmp_path / "bundle", code=17)


@pytest.mark.parametrize("name", sorted(name for name in digests() if name.startswith("hostile-")))
def test_a_hostile_image_harms_nothing_and_fails_clearly_if_it_fails(
    cli: Cli, images: str, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("alive")
    from ocitool.cli import main

    code = main(["unpack", f"{images}:{name}", str(tmp_path / "bundle")])
    assert code in {0, 13, 14, 15}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "store") == (
        ["bundle", "outside"] if code == 0 else ["outside"]
    )
    assert [path.name for path in outside.iterdir()] == ["canary"]
    assert not Path("/tmp/ocitool-escape").exists()


def test_serve_wants_an_address_with_a_port(cli: Cli) -> None:
    assert "HOST:PORT" in cli("serve", layout(), "--listen", "here", code=2).err


def test_a_defect_is_called_one_and_debug_shows_where(
    cli: Cli, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr(LayoutStore, "resolve", broken)
    assert "this is a defect: ZeroDivisionError" in cli("digest", f"{images}:layers:1.0", code=1).err
    monkeypatch.setenv("OCITOOL_DEBUG", "1")
    from ocitool.cli import main

    assert main(["digest", f"{images}:layers:1.0"]) == 1


def test_a_read_only_layout_is_read_and_never_written(cli: Cli, images: str, tmp_path: Path) -> None:
    shutil.copytree(layout(), tmp_path / "frozen")
    cli("digest", f"oci:{tmp_path}/frozen:hello:1.0")
    assert {path.name for path in (tmp_path / "frozen").iterdir()} == {
        path.name for path in layout().iterdir()
    }


@pytest.mark.parametrize("jobs", ["0", "-1", "65"])
def test_a_number_of_jobs_that_makes_no_sense_is_a_wrong_command_line(
    cli: Cli, images: str, tmp_path: Path, jobs: str
) -> None:
    told = cli("copy", "--jobs", jobs, f"{images}:hello:1.0", f"oci:{tmp_path}/copy", code=2)
    assert "--jobs" in told.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["pull", "oci:somewhere:1"],
        ["pull", "./somewhere"],
        ["pull", "example.test/one:1", "example.test/two:1"],
        ["push", "oci:somewhere:1", "oci:elsewhere:1"],
    ],
)
def test_pull_and_push_have_a_registry_on_one_side_and_name_the_command_for_the_rest(
    cli: Cli, arguments: list[str]
) -> None:
    """A registry that a slip of the hand names must not be written to."""
    assert "ocitool copy" in cli(*arguments, code=2).err


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["login", "example.test"], "--username"),
        (["login", "--username", "user", "example.test"], "--password-stdin"),
        (["tags", "--username", "user", "example.test/app"], "--password-stdin"),
        (["login", "--username", "user", "--password-stdin", "example.test"], "no password on stdin"),
        (
            ["copy", "--src-password-stdin", "--dest-password-stdin", "example.test/a", "oci:a"],
            "one password",
        ),
    ],
)
def test_where_nobody_can_be_asked_for_a_password_the_option_that_is_missing_is_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: list[str], missing: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert missing in cli(*arguments, code=2).err


@pytest.mark.parametrize("command", ["login", "logout"])
def test_who_names_more_than_a_registry_is_told_before_a_password_is_asked_for(
    cli: Cli, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    told = cli(command, "registry.example:5000/app", code=2).err
    assert told == (
        "ocitool: 'registry.example:5000/app' is more than a registry's host or host:port\n"
        "  write registry.example:5000\n"
    )


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_an_archive_is_written_once(cli: Cli, images: str, tmp_path: Path, kind: str) -> None:
    archive = f"{kind}:{tmp_path}/a.tar"
    cli("copy", f"{images}:hello:1.0", f"{archive}:example.test/a:1")
    before = (tmp_path / "a.tar").read_bytes()
    for command in (("tag", archive, "2"), ("delete", "--digest", archive)):
        assert "copy it into a layout first" in cli(*command, code=16).err
    assert (tmp_path / "a.tar").read_bytes() == before
    told = cli("copy", f"{images}:hello:1.0", f"{kind}:{tmp_path}", code=17).err
    assert told == (
        f"ocitool: {tmp_path} is a directory, and an archive is a file\n  an image layout is named oci:DIR\n"
    )


def test_one_platform_of_an_image_is_looked_at(cli: Cli, images: str) -> None:
    seen = json.loads(
        cli("inspect", "--platform", "linux/arm64", "--format", "json", f"{images}:hello:1.0").out
    )
    assert seen["platform"] == "linux/arm64"
    assert seen["digest"] == cli("digest", "--platform", "linux/arm64", f"{images}:hello:1.0").result


def test_all_platforms_and_one_exclude_each_other(cli: Cli) -> None:
    told = cli("pull", "--all", "--platform", "linux/arm64", "example.test/app:1", code=2).err
    assert "exclude each other" in told


def test_a_repository_in_the_local_store_has_its_own_tags(cli: Cli, images: str) -> None:
    for name in ("app:1", "app:2", "app-other:1", "other/app:3"):
        cli("copy", f"{images}:hello:1.0", f"store:example.test/{name}")
    assert cli("tags", "store:example.test/app").out == "1\n2\n"
    assert json.loads(cli("tags", "--format", "json", "store:example.test/other/app").out) == ["3"]
    assert "nothing of example.test/none" in cli("tags", "store:example.test/none", code=10).err


def test_a_tag_in_the_local_store_is_the_same_repository_s(cli: Cli, images: str, tmp_path: Path) -> None:
    cli("copy", f"{images}:layers:1.0", "store:example.test/app:1")
    cli("tag", "store:example.test/app:1", "2")
    cli("unpack", "store:example.test/app:1", tmp_path / "bundle")
    (tmp_path / "bundle" / "rootfs" / "new").write_text("added")
    cli("repack", "example.test/app:1", tmp_path / "bundle", "changed")
    assert cli("tags", "store:example.test/app").out.split() == ["1", "2", "changed"]
    cli("tag", "store:example.test/app:1", "other:1")
    assert cli("tags", "store:other").out.split() == ["1"]


def test_what_is_deleted_has_to_be_named(cli: Cli, images: str, tmp_path: Path) -> None:
    cli("copy", f"{images}:hello:1.0", f"oci:{tmp_path}/one:1")
    assert f"oci:{tmp_path}/one:TAG" in cli("delete", f"oci:{tmp_path}/one", code=2).err
    told = cli("delete", f"oci:{tmp_path}/one:2", code=10).err
    assert told == f"ocitool: nothing in the layout {tmp_path}/one is named 2\n  it has 1\n"


def test_a_tag_is_no_reference_and_the_command_for_that_is_named(cli: Cli, images: str) -> None:
    assert "ocitool copy" in cli("tag", f"{images}:hello:1.0", "registry.example/app:1", code=2).err


@pytest.mark.parametrize("name", ["with a space", "\u00fcml\u00e4ut", "x" * 513])
def test_a_name_that_a_layout_can_not_have_is_refused_before_anything_is_copied(
    cli: Cli, images: str, tmp_path: Path, name: str
) -> None:
    told = cli("copy", f"{images}:hello:1.0", f"oci:{tmp_path}/copy:{name}", code=2).err
    assert "visible ASCII" in told
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_no_layout_is_not_called_a_broken_one(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert cli("tags", f"oci:{tmp_path}", code=10).err == f"ocitool: there is no image layout at {tmp_path}\n"
    told = cli("serve", "--read-only", tmp_path / "none", code=10).err
    assert told == f"ocitool: there is no image layout at {tmp_path}/none\n"


def test_a_layout_without_its_index_names_the_command_that_makes_it_anew(
    cli: Cli, images: str, tmp_path: Path
) -> None:
    cli("copy", f"{images}:hello:1.0", f"oci:{tmp_path}/copy:1")
    (tmp_path / "copy" / "index.json").unlink()
    told = cli("tags", f"oci:{tmp_path}/copy", code=14).err
    (command,) = re.findall(r"`ocitool (store check .*)`", told)
    cli(*command.split())
    assert cli("check", f"oci:{tmp_path}/copy").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["mirror", "plan", "FILE", "-o", "none/lock.json"],
        ["mirror", "FILE", "--report", "json=none/lock.json"],
        ["bundle", "inventory", "-o", "none/lock.json", "registry.example/"],
    ],
)
def test_a_file_that_can_not_be_written_in_the_end_is_told_at_the_beginning(
    cli: Cli, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "mirror.yaml").write_text(
        "version: 1\nsources: [{image: registry.example/a, to: registry.example/b}]"
    )
    told = cli(*(str(tmp_path / "mirror.yaml") if word == "FILE" else word for word in arguments), code=2).err
    assert told.endswith("there is no directory none to write lock.json in\n")


def test_an_artifact_has_no_files_to_compare(cli: Cli, images: str) -> None:
    assert "artifact" in cli("diff", f"{images}:hello:1.0", f"{images}:artifact:1.0", code=16).err


def test_a_layout_without_faults_is_called_so(cli: Cli) -> None:
    assert cli("store", "check", "--store", layout()).err == "no problems\n"


def test_a_file_of_variables_that_is_not_there_is_told_in_plain_words(cli: Cli, images: str) -> None:
    told = cli("run", "--env-file", "none.env", f"{images}:hello:1.0", code=125).err
    assert told.endswith("--env-file none.env can't be read: No such file or directory\n")


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_what_goes_into_an_archive_is_told_once_and_as_what_it_is(
    cli: Cli, images: str, tmp_path: Path, kind: str
) -> None:
    told = cli("copy", f"{images}:layers:1.0", f"{kind}:{tmp_path}/a.tar:example.test/a:1").err.splitlines()
    assert len(told) == len(set(told)) == 5
    assert all(line.startswith("copied sha256:") for line in told)


def test_a_store_that_nobody_has_used_yet_is_empty(cli: Cli) -> None:
    assert cli("store", "ls").out.split() == ["NAME", "DIGEST", "PLATFORMS", "SIZE", "UNIQUE"]
    assert json.loads(cli("store", "ls", "--format", "json").out)["images"] == []


def test_each_option_about_registries_has_a_form_for_either_side_of_a_copy(
    cli: Cli, images: str, tmp_path: Path
) -> None:
    named = {parameter.name for parameter in _command("copy").params}
    for one in ("username", "authfile", "tls_verify", "ca_file", "cert_dir", "no_creds", "plain_http"):
        assert {one, f"src_{one}", f"dest_{one}"} <= named
    assert "--src-ca-file" not in cli("copy", "--help").out
    cli("copy", "--src-no-creds", f"{images}:hello:1.0", "--dest-plain-http", f"oci:{tmp_path}/copy")


def config_of(bundle: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((bundle / "config.json").read_bytes())
    return config


def test_unpack_changes_the_configuration_as_its_options_say(cli: Cli, images: str, tmp_path: Path) -> None:
    template = tmp_path / "template.json"
    template.write_text('{"process": {"terminal": true}, "annotations": {"example.test/kept": "yes"}}')
    options = ("--user", "12:34", "--hostname", "box", "--env", "GREETING=hi", "--env", "PATH")
    more = ("--annotation", "example.test/note=a=b", "--config-template", template)
    hooks = ("--hook", "createRuntime=/bin/setup --x 'a b'", "--hook", "createRuntime=/bin/two")
    cli("unpack", *options, *more, *hooks, f"{images}:layers:1.0", tmp_path / "bundle")
    config = config_of(tmp_path / "bundle")
    assert config["hooks"] == {
        "createRuntime": [
            {"path": "/bin/setup", "args": ["/bin/setup", "--x", "a b"]},
            {"path": "/bin/two", "args": ["/bin/two"]},
        ]
    }
    assert config["hostname"] == "box"
    assert (config["process"]["user"]["uid"], config["process"]["user"]["gid"]) == (12, 34)
    assert "GREETING=hi" in config["process"]["env"]
    assert not [entry for entry in config["process"]["env"] if entry.startswith("PATH=")]
    assert config["process"]["terminal"] is True
    assert config["annotations"]["example.test/note"] == "a=b"
    assert config["annotations"]["example.test/kept"] == "yes"


def test_unpack_writes_one_half_of_a_bundle_where_that_is_asked_for(
    cli: Cli, images: str, tmp_path: Path
) -> None:
    cli("unpack", "--config-only", "--user", "0", f"{images}:hello:1.0", tmp_path / "config")
    cli("unpack", "--rootfs-only", f"{images}:hello:1.0", tmp_path / "rootfs")
    assert [path.name for path in (tmp_path / "config").iterdir()] == ["config.json"]
    assert [path.name for path in (tmp_path / "rootfs").iterdir()] == ["rootfs"]
    both = ("--config-only", "--rootfs-only", f"{images}:hello:1.0", tmp_path / "both")
    assert "exclude each other" in cli("unpack", *both, code=2).err


@pytest.mark.parametrize("limit", [("--max-entries", "1"), ("--max-bytes", "1k")])
def test_the_limits_of_unpacking_are_options(
    cli: Cli, images: str, tmp_path: Path, limit: tuple[str, str]
) -> None:
    cli("unpack", *limit, f"{images}:layers:1.0", tmp_path / "bundle", code=15)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("text", ["name", "=value"])
def test_an_annotation_has_a_name_and_a_value(cli: Cli, images: str, tmp_path: Path, text: str) -> None:
    told = cli("unpack", "--annotation", text, f"{images}:hello:1.0", tmp_path / "bundle", code=2)
    assert "NAME=VALUE" in told.err


@pytest.mark.parametrize(
    "text", ["createRuntime", "createRuntime=", "later=/bin/x", "poststop=bin/x", "poststop='"]
)
def test_a_hook_has_a_stage_and_an_absolute_path(cli: Cli, images: str, tmp_path: Path, text: str) -> None:
    assert "--hook" in cli("unpack", "--hook", text, f"{images}:hello:1.0", tmp_path / "bundle", code=2).err


def test_a_changed_bundle_becomes_a_new_image_the_same_each_time(
    cli: Cli, images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = f"oci:{tmp_path}/image"
    old = cli("copy", f"{images}:layers:1.0", f"{where}:old").result
    cli("unpack", f"{where}:old", tmp_path / "bundle")
    unchanged = cli("repack", f"{where}:old", tmp_path / "bundle", "same")
    assert unchanged.result == old
    assert "nothing has changed" in unchanged.err
    (tmp_path / "bundle" / "rootfs" / "new").write_text("added")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    new = cli("repack", f"{where}:old", tmp_path / "bundle", "new", "--comment", "a file more").result
    assert (
        cli("repack", f"{where}:old", tmp_path / "bundle", "again", "--comment", "a file more").result == new
    )
    assert "a file more" in cli("config", f"{where}:new").out
    cli("unpack", f"{where}:new", tmp_path / "back")
    assert (tmp_path / "back" / "rootfs" / "new").read_text() == "added"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")
    assert "SOURCE_DATE_EPOCH" in cli("repack", f"{where}:old", tmp_path / "bundle", "x", code=2).err
    assert cli("repack", "oci-archive:a.tar", tmp_path / "bundle", "x", code=16).out == ""


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_an_archive_that_has_no_directory_is_told_before_anything_is_copied(
    cli: Cli, images: str, tmp_path: Path, kind: str
) -> None:
    told = cli("copy", f"{images}:hello:1.0", f"{kind}:{tmp_path}/none/a.tar", code=10)
    assert told.err == f"ocitool: there is no directory {tmp_path}/none to make the archive a.tar in\n"


def test_a_bundle_that_is_named_like_an_image_is_pointed_out(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").mkdir()
    assert "./bundle" in cli("run", "--pull", "never", "bundle", code=125).err


def test_im_03_a_layer_with_a_bit_flipped_in_the_middle_is_damaged_and_not_malformed(
    cli: Cli, images: str, tmp_path: Path
) -> None:
    """Inflating fails long before the digest is known; the digest says what is really wrong."""
    cli("copy", f"{images}:layers:1.0", f"oci:{tmp_path}/broken:1")
    layer = json.loads(cli("manifest", f"oci:{tmp_path}/broken:1").out)["layers"][0]["digest"]
    blob = tmp_path / "broken" / "blobs" / "sha256" / layer.removeprefix("sha256:")
    content = bytearray(blob.read_bytes())
    content[20] ^= 0xFF
    blob.unlink()  # it may be a link to the fixture's own
    blob.write_bytes(content)
    told = cli("unpack", f"oci:{tmp_path}/broken:1", tmp_path / "bundle", code=13)
    assert f"content of {layer}" in told.err


def test_layers_are_compressed_anew_where_it_is_asked_for_and_it_is_said(
    cli: Cli, images: str, tmp_path: Path
) -> None:
    zstd = cli("copy", "--compression", "zstd", f"{images}:layers:1.0", f"oci:{tmp_path}/zstd:1")
    assert zstd.result != digests()["layers:1.0"]
    assert f"converted {digests()['layers:1.0']}: its new digest is {zstd.result}" in zstd.err
    layers = json.loads(cli("manifest", f"oci:{tmp_path}/zstd:1").out)["layers"]
    assert {layer["mediaType"] for layer in layers} == {"application/vnd.oci.image.layer.v1.tar+zstd"}
    assert cli("diff", f"{images}:layers:1.0", f"oci:{tmp_path}/zstd:1").out == ""


def test_a_conversion_does_not_keep_digests_and_is_refused_where_they_must_stay(
    cli: Cli, images: str, tmp_path: Path
) -> None:
    where = (f"{images}:layers:1.0", f"oci:{tmp_path}/copy:1")
    cli("copy", "--preserve-digests", "--compression", "zstd", *where, code=17)
    assert not (tmp_path / "copy").exists()
    # What is in the wanted form already stays as it is.
    assert cli("copy", "--preserve-digests", "--format", "oci", *where).result == digests()["layers:1.0"]


def test_f_23_content_of_the_right_size_and_the_wrong_bytes_is_replaced_by_a_copy_that_verifies(
    cli: Cli, images: str, tmp_path: Path
) -> None:
    where = (f"{images}:layers:1.0", f"oci:{tmp_path}/copy:1")
    cli("copy", *where)
    layer = json.loads(cli("manifest", where[1]).out)["layers"][0]["digest"].removeprefix("sha256:")
    blob = tmp_path / "copy" / "blobs" / "sha256" / layer
    damaged = bytes(blob.stat().st_size)
    blob.unlink()
    blob.write_bytes(damaged)
    assert "copied" not in cli("copy", *where).err
    assert f"sha256:{layer[:12]}" in cli("copy", "--verify", *where).err
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == layer
