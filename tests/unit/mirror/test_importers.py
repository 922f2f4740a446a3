"""Mirror files of other tools."""

from __future__ import annotations

import pytest
from support.mirror_stores import World, push_image

from ocitool.errors import InvalidContent
from ocitool.mirror import parse
from ocitool.mirror.config import Credentials

SKOPEO = """
up.example:
  images:
    busybox: []
    redis:
      - "1.0"
      - 2.0
      - "sha256:{digest}"
  images-by-tag-regex:
    nginx: ^1\\.13\\.[12]-alpine-perl$
  images-by-semver:
    alpine: ">= 3.12.0"
  credentials: {{username: john, password: "this is a secret"}}
  tls-verify: false
  cert-dir: /etc/certs
  surprise: 1
"""


def test_a_skopeo_file_means_the_same_images_here() -> None:
    world = World()
    digest = push_image(world.repository("up.example/redis"), "pinned").digest
    for name, tags in {
        "busybox": ("1", "2"),
        "redis": ("1.0", "2.0", "3.0"),
        "nginx": ("1.13.1-alpine-perl", "1.13.3-alpine-perl"),
        "alpine": ("3.11.9", "3.12.0", "3.20"),
    }.items():
        for tag in tags:
            push_image(world.repository(f"up.example/{name}"), name, tag, tag=tag)

    job = world.job(SKOPEO.format(digest=digest.hex), to="down.example/m")

    assert {str(item.target) for item in job.wanted.items} == {
        "down.example/m/busybox:1",
        "down.example/m/busybox:2",
        "down.example/m/redis:1.0",
        "down.example/m/redis:2.0",
        f"down.example/m/redis@{digest}",
        "down.example/m/nginx:1.13.1-alpine-perl",
        "down.example/m/alpine:3.12.0",
        "down.example/m/alpine:3.20",
    }
    assert job.wanted.failures == ()


def test_a_skopeo_file_s_unknown_fields_and_secrets_are_said_not_obeyed() -> None:
    file = parse(SKOPEO.format(digest="0" * 64).encode(), to="r.example/{name}")

    credentials, surprise = file.notes
    assert "up.example.credentials holds credentials, which are not read" in credentials
    assert "secret" not in credentials.replace("a secret", "")
    assert "this is" not in credentials
    assert surprise == "up.example.surprise is not known, and not obeyed"
    assert file.registries["up.example"].tls_verify is False
    assert file.registries["up.example"].cert_dir == "/etc/certs"


def test_a_skopeo_file_needs_a_destination() -> None:
    with pytest.raises(InvalidContent) as caught:
        parse(b"up.example: {images: {a: []}}")
    assert "--to" in caught.value.__notes__[0]


REGSYNC = """
version: 1
creds:
  - {registry: up.example, user: '{{env "U"}}', pass: '{{env "P"}}', tls: disabled, reqPerSec: 5}
  - {registry: other.example, user: me, pass: inline}
  - {registry: third.example, credHelper: docker-credential-gcloud, tls: insecure}
defaults: {parallel: 2, interval: 6h, digestTags: true, ratelimit: {min: 60}}
sync:
  - source: up.example/redis
    target: down.example/redis
    type: repository
    platforms: [linux/amd64]
    tags: {allow: ["7.*"], deny: [".*-rc"], semverRange: [">=8"]}
    schedule: "0 3 * * *"
  - {source: up.example/tool:1, target: down.example/tools/tool:one, type: image, referrers: true}
  - {source: up.example, target: down.example/all, type: registry, repos: {allow: ['x/.*'], deny: ['x/y']}}
"""


def test_a_regsync_file_means_the_same_images_here() -> None:
    world = World()
    for name in ("redis:7.0", "redis:7.1-rc", "redis:8.1.0", "redis:6", "tool:1", "x/a:1", "x/y:1"):
        repository, _, tag = name.partition(":")
        push_image(world.repository(f"up.example/{repository}"), name, tag=tag)

    job = world.job(REGSYNC)

    assert {str(item.target) for item in job.wanted.items} == {
        "down.example/redis:7.0",
        "down.example/redis:8.1.0",
        "down.example/tools/tool:one",
        "down.example/all/x/a:1",
    }
    by_name = {item.target.place: item.options for item in job.wanted.items}
    assert by_name["down.example/tools/tool"].referrers
    assert by_name["down.example/tools/tool"].digest_tags
    assert not by_name["down.example/redis"].referrers
    assert job.limits.jobs == 2


def test_a_regsync_file_s_unknown_fields_and_secrets_are_said_not_obeyed() -> None:
    file = parse(REGSYNC.encode())

    told = "\n".join(file.notes)
    for field in ("creds[0].reqPerSec", "defaults.interval", "defaults.ratelimit", "sync[0].schedule"):
        assert f"{field} is not known, and not obeyed" in told
    assert "creds[1] holds a user or password" in told
    assert "inline" not in told
    assert file.registries["up.example"].credentials == Credentials("U", "P")
    assert file.registries["up.example"].plain_http
    assert file.registries["third.example"].credentials.helper == "gcloud"
    assert file.registries["third.example"].tls_verify is False


def test_a_regsync_target_may_be_a_layout() -> None:
    file = parse(b"{version: 1, sync: [{source: up.example/a, target: 'ocidir://dir', type: repository}]}")
    template = file.rules[0].options.to
    assert template
    assert template.text == "oci:dir:{tag}"
