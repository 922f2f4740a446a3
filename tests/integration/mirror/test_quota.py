"""What registries say of their quotas."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command import Ocitool
from support.registry_fake import FakeRegistry, Response, always

pytestmark = pytest.mark.registry


def test_what_is_left_of_a_registry_s_quota_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "mirror.yaml"
    with FakeRegistry().running() as fake:
        headers = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}
        refusal = Response(429, headers, b'{"errors":[{"code":"TOOMANYREQUESTS"}]}')
        fake.before.append(always("", "", lambda _: refusal))
        rule = f"{{image: '{fake.name}/a/b:1', to: 'oci:{tmp_path}/layout'}}"
        file.write_text(f"version: 1\nsources: [{rule}]\n")

        done = Ocitool(tmp_path)("mirror", "plan", file, code=3)

    assert f"{fake.name}: 0 of 100 pulls left" in done.err
    assert "failed     " in done.out
