"""Mirroring between real registries, by the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest
from support.mirror_stores import push_image, push_multi, push_signature
from support.peers import call, require
from support.waiting import until

from ocitool.content import read_manifest
from ocitool.errors import NotFound
from ocitool.model import Index

if TYPE_CHECKING:
    from support.mirror_field import Field

pytestmark = pytest.mark.registry

# What has nothing to do with the destination's kind is tested with one of them.
one_kind = pytest.mark.parametrize("between", ["ocitool serve"], indirect=True)

ALL = "  - registry: UP\n    to: DOWN/m/{repository}\n"


def test_the_first_run_copies_and_the_second_asks_only_by_head_and_says_so(between: Field) -> None:
    index = push_multi(between.above("team/app"), "a", "amd64", "arm64", tag="1.0")
    image = push_image(between.above("team/tool"), "base", "tool", tag="2.0")
    signature = push_signature(between.above("team/tool"), image)
    cosign = push_signature(between.above("team/tool"), image, tag=f"sha256-{image.digest.hex}.sig")
    file = between.write(ALL)

    first = between.run("mirror", file)

    assert "2 copied" in first.out
    assert between.below("m/team/app").resolve("1.0") == index
    assert between.below("m/team/tool").resolve("2.0") == image
    assert between.below("m/team/tool").resolve(f"sha256-{image.digest.hex}.sig") == cosign
    assert list(between.below("m/team/tool").referrers(image)) == [signature]
    between.up.served.clear()

    second = between.run("mirror", file)

    assert second.out == "all 2 images are unchanged; nothing was read but names and digests\n"
    asked = {(request.method, request.route) for request in between.up.served}
    assert {route for method, route in asked if method == "GET"} <= {"catalog", "tags", "referrers"}
    assert ("HEAD", "manifest") in asked


@one_kind
def test_a_digest_tag_stays_in_its_repository_by_way_of_a_layout_and_a_bundle(between: Field) -> None:
    image = push_image(between.above("team/tool"), "base", "tool", tag="2.0")
    tag = f"sha256-{image.digest.hex}.sig"
    signature = push_signature(between.above("team/tool"), image, tag=tag)
    layout = f"oci:{between.work}/layout"
    file = between.write(f"  - {{registry: UP, to: '{layout}:{{repository}}:{{tag}}'}}\n")
    between.run("mirror", file)
    assert between.run("tags", layout).out.split() == ["team/tool:2.0", f"team/tool:{tag}"]
    assert "unchanged" in between.run("mirror", file, "--prune").out
    assert between.run("tags", layout).out.split() == ["team/tool:2.0", f"team/tool:{tag}"]

    between.run("bundle", "create", f"{between.work}/bundle", layout)
    between.run("bundle", "apply", f"{between.work}/bundle", f"{between.down}/far")

    assert between.below("far/team/tool").resolve(tag) == signature


@one_kind
def test_a_repository_that_is_not_there_yet_is_not_asked_for_every_name(between: Field) -> None:
    for n in range(12):
        push_image(between.above("team/app"), f"layer {n}", tag=f"1.{n}")
    file = between.write("  - repository: UP/team/app\n    to: UP/copy/{repository}\n")
    between.up.served.clear()

    done = between.run("mirror", file, "--jobs=1")

    assert "12 copied" in done.out
    asked = [r for r in between.up.served if (r.method, r.route, r.status) == ("HEAD", "manifest", 404)]
    assert 1 <= len(asked) <= 4, "as many as questions are under way at once"
    assert between.above("copy/team/app").resolve("1.11") == between.above("team/app").resolve("1.11")


def test_a_plan_is_exact_and_its_replay_takes_what_was_reviewed(between: Field) -> None:
    source = between.above("team/app")
    planned = push_multi(source, "a", "amd64", "arm64", tag="1.0")
    push_image(source, "a amd64", "b", tag="1.1")
    file = between.write(ALL)
    lock = between.work / "mirror.lock.json"

    told = between.run("mirror", "plan", file, "-o", lock)
    moved = push_image(source, "moved", tag="1.0")
    between.up.served.clear()
    done = between.run("mirror", file, "--locked", lock, "--format", "json")

    totals = json.loads(lock.read_bytes())["totals"]["sources"][between.up_host]
    assert f"from {between.up_host}: {totals['bytes']} bytes in {totals['blobs']} blobs" in told.out
    result = json.loads(done.out)
    assert sum(image["bytes"] for image in result["images"]) == totals["bytes"]
    blobs = [request for request in between.up.served if (request.method, request.route) == ("GET", "blob")]
    assert len(blobs) == totals["blobs"]
    assert result["pulls"] == {}, "what the plan has read is not read again"
    assert between.below("m/team/app").resolve("1.0") == planned
    assert str(moved.digest) in result["images"][0]["notes"][0]

    with file.open("a") as changed:
        changed.write("# reviewed?\n")
    assert "has changed since the plan" in between.run("mirror", file, "--locked", lock, code=17).err


def test_a_part_of_an_index_and_the_rest_of_it_later(between: Field) -> None:
    """Debian's docker-registry takes no sparse index (MANIFEST_BLOB_UNKNOWN); ours does where it is told."""
    index = push_multi(between.above("team/app"), "a", "amd64", "arm64", tag="1.0")
    there = between.below("m/team/app")

    first = between.run("mirror", between.write(ALL + "    platforms: [linux/amd64]\n"))

    written = there.resolve("1.0")
    if between.kind == "docker-registry":
        assert "new, smaller index" in first.out
        assert "takes no index whose manifests are not all there" in first.out
        parsed = read_manifest(there, written)
        assert isinstance(parsed, Index)
        assert [str(entry.platform) for entry in parsed.manifests] == ["linux/amd64"]
    else:
        assert written == index
        assert "new, smaller" not in first.out
    assert "unchanged" in between.run("mirror", between.file).out
    between.up.served.clear()

    between.run("mirror", between.write(ALL))

    assert there.resolve("1.0") == index
    assert len([r for r in between.up.served if (r.method, r.route) == ("GET", "blob")]) == 2
    assert "all 1 images are unchanged" in between.run("mirror", between.file).out


def test_where_the_digest_must_stay_a_registry_that_wants_all_of_an_index_is_a_failure(
    between: Field,
) -> None:
    push_multi(between.above("team/app"), "a", "amd64", "arm64", tag="1.0")
    file = between.write(ALL + "    platforms: [linux/amd64]\n    sparse: always\n")

    code = 3 if between.kind == "docker-registry" else 0
    between.run("mirror", file, code=code)

    if code:
        with pytest.raises(NotFound):
            between.below("m/team/app").resolve("1.0")


@one_kind
def test_what_fails_is_in_every_report_and_the_rest_is_there(between: Field) -> None:
    image = push_image(between.above("team/app"), "a", tag="1.0")
    file = between.write(
        "  - {repository: UP/team/app, to: 'DOWN/m/{name}'}\n"
        "  - {image: 'UP/team/app:9.9', to: 'DOWN/m/{name}'}\n"
        "  - {repository: UP/team/none, to: 'DOWN/m/{name}'}\n"
    )
    reports = [f"{kind}={between.work}/report.{kind}" for kind in ("text", "json", "junit")]

    done = between.run("mirror", file, *(f"--report={report}" for report in reports), code=3)

    assert between.below("m/app").resolve("1.0") == image
    assert "1 copied" in done.out
    assert "2 failed" in done.out
    assert (between.work / "report.text").read_text() == done.out
    report: dict[str, Any] = json.loads((between.work / "report.json").read_text())
    assert [failure["error"]["kind"] for failure in report["failures"]] == ["NotFound", "NotFound"]
    suite = ET.parse(between.work / "report.junit").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")


def test_pruning_deletes_what_no_rule_wants_and_nothing_that_a_kept_name_reaches(between: Field) -> None:
    source, there = between.above("team/app"), between.below("m/team/app")
    kept = push_image(source, "kept", tag="2.0")
    push_image(there, "old", tag="1.0")
    file = between.write(ALL)
    between.run("mirror", file)
    assert "would delete" in between.run("mirror", file, "--dry-run", "--prune", "--max-delete=50%").out

    refused = between.run("mirror", file, "--prune", code=17)
    assert "would delete 1 of 2 tags" in refused.err
    done = between.run("mirror", file, "--prune", "--max-delete=1")

    assert f"deleted {between.down}/m/team/app:1.0" in done.out
    assert list(there.tags()) == ["2.0"]
    assert there.resolve("2.0") == kept


@one_kind
def test_a_report_that_cannot_be_written_hides_nothing_of_the_run(between: Field) -> None:
    push_image(between.above("team/app"), "a", tag="1.0")

    done = between.run("mirror", between.write(ALL), "--report=json=/proc/report.json", code=1)

    assert "1 copied" in done.out
    assert done.err.splitlines()[-1].startswith("ocitool: ")
    assert "/proc/report.json" in done.err


def test_a_run_without_prune_deletes_nothing(between: Field) -> None:
    source, there = between.above("team/app"), between.below("m/team/app")
    image = push_image(source, "wanted", tag="2.0")
    old = push_image(there, "old", tag="1.0")
    signature = push_signature(there, old)
    before = set(there.tags())
    file = between.write(ALL, limits="{max-delete: 100%}")

    for _ in range(2):  # one that copies, and one that finds nothing to do
        done = between.run("mirror", file, "--format=json")
        assert json.loads(done.out)["pruned"] == []

    assert set(there.tags()) == {"2.0", *before}
    assert there.resolve("1.0") == old
    assert list(there.referrers(old)) == [signature]
    assert there.resolve("2.0") == image


def test_a_name_that_shares_a_kept_digest_goes_alone_or_stays_and_says_so(between: Field) -> None:
    source, there = between.above("team/app"), between.below("m/team/app")
    push_image(source, "same", tag="2.0")
    there.tag(push_image(there, "same", tag="2.0"), "1.0")
    file = between.write(ALL)

    # Debian's docker-registry deletes no tag alone.
    stays = between.kind == "docker-registry"
    done = between.run("mirror", file, "--prune", "--max-delete=1", code=3 if stays else 0)

    assert list(there.tags()) == (["1.0", "2.0"] if stays else ["2.0"])
    assert ("deletes no tag alone" in done.out) is stays
    assert there.exists(source.resolve("2.0"))


def test_a_run_that_is_killed_is_finished_by_the_next_one(between: Field) -> None:
    for n in range(12):
        push_image(between.above("team/app"), "base", f"layer {n} " * 1000, tag=f"1.{n}")
    file = between.write(ALL)
    process = subprocess.Popen(
        [sys.executable, "-m", "ocitool", "-q", "mirror", file, "--limit-rate=5K"],
        env=between.run.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: _tags(between))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(_tags(between)) < 12, "and had not ended"

    done = between.run("mirror", file)

    assert "failed" not in done.out
    assert len(_tags(between)) == 12
    for tag in _tags(between):
        assert between.below("m/team/app").resolve(tag) == between.above("team/app").resolve(tag)


def _tags(between: Field) -> list[str]:
    try:
        return list(between.below("m/team/app").tags())
    except NotFound:
        return []


@one_kind
def test_an_interrupted_run_ends_at_once_with_its_own_code(between: Field) -> None:
    push_image(between.above("team/app"), "x" * 1_000_000, tag="1.0")
    between.up.served.clear()
    process = subprocess.Popen(
        [sys.executable, "-m", "ocitool", "-q", "mirror", between.write(ALL), "--limit-rate=10K"],
        env=between.run.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: [r for r in between.up.served if (r.method, r.route) == ("GET", "manifest")])
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)  # the copy itself would take longer
    assert process.returncode == 130
    assert "Traceback" not in told


@one_kind
def test_shards_do_everything_once_between_them(between: Field) -> None:
    for n in range(10):
        push_image(between.above("team/app"), f"layer {n}", tag=f"1.{n}")
    file = between.write(ALL)
    copied = 0
    for index in range(3):
        environment = {"JOB_COMPLETION_INDEX": str(index), "JOB_COMPLETIONS": "3"}
        out = call(
            sys.executable, "-m", "ocitool", "mirror", str(file), "--shard=auto", "--format=json",
            env={**between.run.environment, **environment},
        )  # fmt: skip
        images = json.loads(out)["images"]
        assert {image["outcome"] for image in images} <= {"copied"}
        copied += len(images)
    assert copied == 10
    assert len(_tags(between)) == 10


@one_kind
def test_a_layout_is_a_destination_as_well(between: Field) -> None:
    index = push_multi(between.above("team/app"), "a", "amd64", "arm64", tag="1.0")
    file = between.write(f"  - {{registry: UP, to: 'oci:{between.work}/layout:{{name}}-{{tag}}'}}\n")

    between.run("mirror", file)

    assert between.run("digest", f"oci:{between.work}/layout:app-1.0").result == str(index.digest)
    assert "all 1 images are unchanged" in between.run("mirror", file).out


@one_kind
def test_a_run_does_not_look_like_a_crash_to_who_writes_to_its_layout_next(between: Field) -> None:
    """A lease that is left over would: the process ends at once, but not before the lease has."""
    push_multi(between.above("team/app"), "a", "amd64", tag="1.0")

    between.run("mirror", between.write(f"  - {{registry: UP, to: 'oci:{between.work}/layout:{{tag}}'}}\n"))

    assert not list((between.work / "layout" / ".ocitool" / "leases").iterdir())


def test_it_means_what_skopeo_sync_means_by_the_same_file(between: Field) -> None:
    require("skopeo")
    for tag in ("1.0", "1.1", "2.0"):
        push_image(between.above("team/app"), "base", tag, tag=tag)
    push_multi(between.above("team/multi"), "m", "amd64", "arm64", tag="7")
    push_image(between.above("team/other"), "o", tag="3.0-alpine")
    file = between.work / "sync.yaml"
    images = {"team/app": ["1.0", "2.0"], "team/multi": []}
    file.write_text(
        json.dumps(
            {
                between.up_host: {
                    "images": images,
                    "images-by-tag-regex": {"team/other": "alpine$"},
                    "tls-verify": False,
                }
            }
        )
    )

    call(
        "skopeo", "sync", "--all", "--preserve-digests", "--src", "yaml", "--dest", "docker",
        "--dest-tls-verify=false", str(file), f"{between.down}/theirs",
    )  # fmt: skip
    between.run("mirror", file, "--to", f"{between.down}/ours/{{name}}")

    for name in ("app", "multi", "other"):
        ours, theirs = between.below(f"ours/{name}"), between.below(f"theirs/{name}")
        assert list(ours.tags()) == list(theirs.tags()) != []
        assert [ours.resolve(tag) for tag in ours.tags()] == [theirs.resolve(tag) for tag in theirs.tags()]


@one_kind
def test_pull_budgets_hold_across_runs(between: Field) -> None:
    for n in range(4):
        push_image(between.above("team/app"), f"layer {n}", tag=f"1.{n}")
    file = between.write(ALL)
    budget = f"--pulls={between.up_host}=3/1h"

    first = between.run("mirror", file, budget, code=3)
    second = between.run("mirror", file, budget, code=3)

    assert "3 copied" in first.out
    assert "the budget of 3 pulls" in second.out
    pulls = [r for r in between.up.served if (r.method, r.route) == ("GET", "manifest") and r.status == 200]
    assert len(pulls) == 3


@one_kind
def test_a_rate_is_kept_within_five_percent(between: Field) -> None:
    push_image(between.above("team/app"), "x" * 750_000, "y" * 750_000, tag="1.0")
    file = between.write(ALL)
    between.run("mirror", "plan", file)
    start = time.monotonic()

    between.run("mirror", file, "--limit-rate=1M")

    # Starting takes a moment as well; what counts is that bytes do not come faster.
    assert time.monotonic() - start >= 0.95 * 1_500_000 / (1 << 20)


@one_kind
@pytest.mark.parametrize("present", [True, False])
def test_credentials_come_from_the_environment_that_the_file_names(between: Field, *, present: bool) -> None:
    push_image(between.above("team/app"), "a", tag="1.0")
    registries = "{UP: {credentials: {username-env: MIRROR_USER, password-env: MIRROR_PASSWORD}}}"
    file = between.write(ALL, registries=registries)
    environment = {**between.run.environment, "MIRROR_USER": "me"}
    if present:
        environment["MIRROR_PASSWORD"] = "secret-word"
    done = subprocess.run(
        [sys.executable, "-m", "ocitool", "mirror", file],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "secret-word" not in done.stdout + done.stderr
    assert done.returncode == (0 if present else 3)
    if not present:
        assert "MIRROR_PASSWORD, which the mirror file names, is not set" in done.stdout


@one_kind
def test_a_hostile_file_is_one_sentence_and_nothing_is_asked(between: Field) -> None:
    between.file.write_text("a: &a [x,x,x,x,x,x,x,x,x]\n" + "b: [" + "*a, " * 200 + "]\n")
    done = between.run("mirror", between.file, code=15)
    assert "more than 100 aliases" in done.err
    assert between.up.served == []


@one_kind
def test_a_password_that_names_no_registry_is_sent_to_none(between: Field) -> None:
    file = between.write(ALL)
    told = between.run(
        "mirror", "apply", "--username=me", "--password-stdin", file, stdin="secret-word", code=2
    )
    assert "do not say for which registry" in told.err
    assert between.up.served == []


@one_kind
def test_a_dry_run_moves_nothing_and_can_be_kept_as_a_lock(between: Field) -> None:
    push_image(between.above("team/app"), "a", tag="1.0")
    file = between.write(ALL)

    told = between.run("mirror", file, "--dry-run", "--format=json")

    assert _tags(between) == []
    lock = between.work / "lock.json"
    lock.write_text(told.out)
    between.run("mirror", file, "--locked", lock)
    assert _tags(between) == ["1.0"]


@one_kind
def test_a_layout_is_pruned_as_well(between: Field) -> None:
    push_image(between.above("team/app"), "a", tag="1.0")
    push_image(between.above("team/app"), "b", tag="2.0")
    rule = f"  - {{registry: UP, to: 'oci:{between.work}/layout:{{name}}-{{tag}}', tags: %s}}\n"
    between.run("mirror", between.write(rule % "['1.0', '2.0']"))

    done = between.run("mirror", between.write(rule % "['2.0']"), "--prune", "--max-delete=50%")

    assert "deleted" in done.out
    assert between.run("tags", f"oci:{between.work}/layout").out == "app-2.0\n"
