"""The how-to pages, run as they are written, with registries of this machine in place of theirs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.mirror_stores import push_image

if TYPE_CHECKING:
    from support.mirror_field import Field

pytestmark = [
    pytest.mark.registry,
    pytest.mark.parametrize("between", ["docker-registry"], indirect=True),
]

PAGES = Path(__file__).parents[3] / "docs" / "how-to"
CREDENTIALS = (
    "HUB_USER",
    "HUB_TOKEN",
    "GITHUB_ACTOR",
    "GHCR_TOKEN",
    "CI_REGISTRY_USER",
    "CI_REGISTRY_PASSWORD",
)


def blocks(page: str) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```$", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)


def prepare(between: Field, mirror: str, destination: str) -> None:
    """Write the page's mirror file, and the images that it is about."""
    for tag in ("7.0.1", "7.2.0", "7.4.1", "8.0.0", "8.0.1"):
        push_image(between.above("library/redis"), "redis", tag, tag=tag)
    text = mirror.replace("docker.io", between.up_host).replace(destination, between.down)
    (between.work / "mirror.yaml").write_text(text)


def shell(between: Field, command: str, **environment: str) -> str:
    """Run a line of the page in a shell, with `ocitool` on its PATH."""
    programs = between.work / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "ocitool").write_text(f'#!/bin/sh\nexec {sys.executable} -m ocitool "$@"\n')
    (programs / "ocitool").chmod(0o755)
    done = subprocess.run(
        ["sh", "-ec", command],
        cwd=between.work,
        env={
            **between.run.environment,
            **dict.fromkeys(CREDENTIALS, "x"),
            "PATH": f"{programs}:{os.environ['PATH']}",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_gitlab_s_jobs_do_what_the_page_says(between: Field) -> None:
    mirror, pipeline = blocks("mirror-in-gitlab-ci.md")
    prepare(between, mirror, "registry.gitlab.example")
    jobs: dict[str, Any] = yaml.safe_load(pipeline)

    told = [shell(between, line) for line in jobs["plan"]["script"]]
    assert "1 rule, no problems" in told[0]
    assert "3 images, 0 of them unchanged" in told[1]
    total = jobs["mirror"]["parallel"]
    for part in range(1, total + 1):
        for line in jobs["mirror"]["script"]:
            shell(between, line, CI_NODE_INDEX=str(part), CI_NODE_TOTAL=str(total))

    assert list(between.below("group/mirror/library/redis").tags()) == ["7.4.1", "8.0.0", "8.0.1"]
    assert (between.work / jobs["mirror"]["artifacts"]["reports"]["junit"]).exists()
    assert (between.work / jobs["mirror"]["cache"]["paths"][0]).is_dir()


def test_github_s_steps_do_what_the_page_says(between: Field) -> None:
    mirror, workflow = blocks("mirror-in-github-actions.md")
    prepare(between, mirror, "ghcr.io")
    page = (PAGES / "mirror-in-github-actions.md").read_text()
    locked = re.search(r"^\$ (ocitool mirror plan .*)$", page, re.MULTILINE)
    assert locked
    shell(between, locked[1])
    jobs: dict[str, Any] = yaml.safe_load(workflow)["jobs"]

    for step in _ours(jobs["plan"]):
        shell(between, step, GITHUB_STEP_SUMMARY=str(between.work / "summary.md"))
    assert "3 images" in (between.work / "summary.md").read_text()
    push_image(between.above("library/redis"), "after the review", tag="8.0.2")
    for part in jobs["apply"]["strategy"]["matrix"]["part"]:
        for step in _ours(jobs["apply"]):
            shell(between, step.replace("${{ matrix.part }}", str(part)))

    assert list(between.below("my-org/mirror/library/redis").tags()) == ["7.4.1", "8.0.0", "8.0.1"]


def _ours(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if step.get("run", "").startswith("ocitool")]


def test_the_pods_of_the_job_in_deploy_do_everything_once_between_them(between: Field) -> None:
    page = (PAGES.parents[1] / "deploy" / "mirror-job.yaml").read_text()
    spec: dict[str, Any] = yaml.safe_load(page)["spec"]
    container = spec["template"]["spec"]["containers"][0]
    tags = [f"1.{n}" for n in range(12)]
    for tag in tags:
        push_image(between.above("team/app"), f"layer {tag}", tag=tag)
    between.write("  - repository: UP/team/app\n    to: DOWN/m/{repository}\n")
    plan = re.search(r"^#   (ocitool mirror plan .*)$", page, re.MULTILINE)
    assert plan is not None
    shell(between, plan[1])

    copied = []
    for index in range(spec["completions"]):
        # What the container's volumes are to it: a place of its own to write, and the files of all.
        mounts = {"/config/": f"{between.work}/", "/state": f"{between.work}/state-{index}"}
        line = shlex.join([*container["command"], *container["args"]])
        values = {entry["name"]: entry["value"] for entry in container["env"]}
        for inside, outside in mounts.items():
            line = line.replace(inside, outside)
            values = {name: value.replace(inside, outside) for name, value in values.items()}
        told = shell(between, line, **values, JOB_COMPLETION_INDEX=str(index))
        copied += re.findall(r"^copied +\S+/m/team/app:(\S+?)@", told, re.MULTILINE)

    assert sorted(copied) == sorted(tags), "each by one of them"
    assert sorted(between.below("m/team/app").tags()) == sorted(tags)
