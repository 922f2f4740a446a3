"""The mirror files in the documentation are read as they stand, and the job manifest says what it means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from ocitool.cli.mirroring import mirror
from ocitool.errors import Conflict, InvalidContent, InvalidReference, UnsafeContent
from ocitool.mirror import Shard, parse

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    [*(ROOT / "docs" / "how-to").glob("mirror-*.md"), ROOT / "docs" / "reference" / "mirror-file.md"]
)


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_mirror_file_of_a_page_has_no_problems(page: Path) -> None:
    first = blocks(page)[0]
    assert parse(first.encode(), str(page)).rules


def commands(text: str) -> list[list[str]]:
    """The `ocitool mirror` commands in a text, with the options that they use."""
    found = re.findall(r"ocitool mirror ([^|\n`)]*)", re.sub(r"\$\{\{.*?\}\}", "1", text))
    return [line.split() for line in found]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "deploy" / "mirror-job.yaml"], ids=lambda page: page.name)
def test_every_option_that_a_page_uses_exists(page: Path) -> None:
    known = {option for command in mirror.commands.values() for p in command.params for option in p.opts}
    used = {
        word.split("=")[0] for command in commands(page.read_text()) for word in command if word[:1] == "-"
    }
    assert used <= known
    assert commands(page.read_text())


def test_the_job_s_pods_find_their_parts() -> None:
    job: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "mirror-job.yaml").read_text())
    total = job["spec"]["completions"]
    container = job["spec"]["template"]["spec"]["containers"][0]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert job["spec"]["parallelism"] == total
    assert environment["JOB_COMPLETIONS"] == str(total)
    parts = [Shard.parse("auto", {**environment, "JOB_COMPLETION_INDEX": str(i)}) for i in range(total)]
    assert parts == [Shard(i + 1, total) for i in range(total)]
    assert "--shard=auto" in container["args"]
    fatal = job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"]
    assert [kind.exit_code for kind in (InvalidReference, InvalidContent, UnsafeContent, Conflict)] == fatal


def test_help_names_what_the_file_is() -> None:
    told = CliRunner().invoke(mirror, ["--help"]).output
    assert "skopeo sync YAML" in told


@pytest.mark.parametrize(
    "arguments", [["FILE", "--report", "pdf=x"], ["--jobs", "2", "--report=pdf=x", "FILE"]]
)
def test_mirror_file_is_mirror_apply_file_with_its_options_on_either_side(
    tmp_path: Path, arguments: list[str]
) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("version: 1")
    told = CliRunner().invoke(mirror, [str(file) if word == "FILE" else word for word in arguments]).output
    assert "'pdf=x' is not text=FILE, json=FILE or junit=FILE" in told


def test_every_test_that_a_promise_names_exists() -> None:
    page = (ROOT / "docs" / "reference" / "mirror-and-bundle.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| what")]
    assert len(rows) > 30
    for row in rows:
        named = re.findall(r"`([\w/]+)::(test_\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (ROOT / "tests" / f"{file}.py").read_text()
