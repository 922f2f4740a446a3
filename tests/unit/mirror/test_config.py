"""The mirror file: what is read, and how each problem is told."""

from __future__ import annotations

import pytest

from ocitool.errors import InvalidContent, UnsafeContent
from ocitool.mirror import MirrorFile, PullLimit, parse
from ocitool.mirror.config import Credentials
from ocitool.mirror.naming import Target
from ocitool.platforms import Platform
from ocitool.reference import Reference


def read(text: str) -> MirrorFile:
    return parse(text.encode())


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidContent) as caught:
        read(text)
    return list(caught.value.__notes__)


FULL = """
version: 1
defaults:
  to: reg.example/mirror/{registry}/{repository}
  platforms: [linux/amd64, linux/arm64]
sources:
  - image: alpine:3.20
  - image: ghcr.io/org/tool@sha256:0000000000000000000000000000000000000000000000000000000000000000
    to: reg.example/tool:pinned
    referrers: false
  - repository: docker.io/library/redis
    tags: {glob: "7.*", semver: [">=7.2"], exclude: "*-rc*", exclude-regex: ['.*alpine.*'], latest: 2}
    digest-tags: false
    sparse: never
  - registry: up.example:5000
    repositories: {regex: ['team/.*']}
    tags: ["1.10", on]
skip: ["*/debug:*"]
limits: {jobs: 8, rate: 20M, pulls: {docker.io: 80/6h}, max-delete: 5%}
registries:
  docker.io: {credentials: {username-env: HUB_USER, password-env: HUB_TOKEN}}
  up.example:5000: {credentials: {helper: ecr-login}, plain-http: true}
"""


def test_reads_every_field() -> None:
    file = read(FULL)

    image, pinned, repository, registry = file.rules
    assert image.source == Reference.parse("alpine:3.20")
    assert image.options.platforms == (Platform("linux", "amd64"), Platform("linux", "arm64"))
    assert image.options.referrers
    assert image.options.digest_tags
    assert not pinned.options.referrers
    assert repository.tags.latest == 2
    assert repository.options.sparse == "never"
    assert not repository.options.digest_tags
    assert registry.source == "up.example:5000"
    assert registry.tags.exact == ("1.10", "on"), "text stays as it was written"
    assert "team/x" in registry.repositories.patterns[0]
    assert "reg.example/debug:1" in file.skip[0]
    assert (file.limits.jobs, file.limits.rate, file.limits.max_delete) == (8, 20 << 20, "5%")
    assert file.limits.pulls == {"docker.io": PullLimit(80, 21600)}
    assert file.registries["docker.io"].credentials == Credentials("HUB_USER", "HUB_TOKEN")
    assert file.registries["up.example:5000"].credentials.helper == "ecr-login"
    assert file.registries["up.example:5000"].plain_http


def test_a_template_says_where_each_image_goes() -> None:
    image, pinned, *_ = read(FULL).rules
    assert image.options.to
    assert pinned.options.to
    assert image.options.to.target(Reference.parse("alpine:3.20")) == Target(
        "reg.example/mirror/docker.io/library/alpine", "3.20"
    )
    assert isinstance(pinned.source, Reference)
    assert pinned.options.to.target(pinned.source) == Target("reg.example/tool", "pinned")


@pytest.mark.parametrize(
    ("to", "source", "place", "name"),
    [
        ("r.example/{name}", "up.example/a/b/c:1", "r.example/c", "1"),
        ("r.example/x/{namespace}/{name}", "up.example/c:1", "r.example/x/c", "1"),
        ("r.example/{name}:v-{tag}", "up.example/c:1", "r.example/c", "v-1"),
        ("oci:DIR", "up.example/c:1", "oci:DIR", "up.example/c:1"),
        ("oci:DIR:{name}-{tag}", "up.example/c:1", "oci:DIR", "c-1"),
        ("r.example/{name}:{tag}", "up.example/c@sha256:" + "0" * 64, "r.example/c", "sha256:" + "0" * 64),
        ("oci:DIR", "up.example/c@sha256:" + "0" * 64, "oci:DIR", "sha256:" + "0" * 64),
        ("r.example/{name}", "up.example/c:1@sha256:" + "0" * 64, "r.example/c", "1"),
    ],
)
def test_templates_fill_places_and_names(to: str, source: str, place: str, name: str) -> None:
    file = read(f"{{version: 1, sources: [{{image: '{source}', to: '{to}'}}]}}")
    template = file.rules[0].options.to
    assert template
    assert template.target(Reference.parse(source)) == Target(place, name)


def test_all_problems_are_told_at_once_each_with_its_path_and_line() -> None:
    found = problems(
        """
version: 2
sources:
  - image: Alpine
    to: reg.example/{registy}
  - repositry: redis
    to: r.example/x
  - repository: redis:7
  - registry: up.example
    to: r.example/{name}
    tags: {regex: ['('], latest: none, semver: "what"}
limits: {jobs: 0, rate: fast, pulls: {docker.io: 80}}
skipp: []
"""
    )

    told = "\n".join(found)
    assert len(found) == 14, told
    for expected in (
        "skipp (line 13): unknown field; is it `skip`?",
        "version (line 2): '2' is not a version that is known; 1 is",
        "sources[0].image (line 4): 'Alpine' is not an image reference",
        "sources[0].to (line 5): {registy} is none of",
        "sources[1].repositry (line 6): unknown field; is it `repository`?",
        "sources[1]: needs exactly one of",
        "sources[2].repository (line 8): 'redis:7' has a tag or a digest",
        "sources[2]: says not where to",
        "sources[3].tags.regex[0] (line 11): '(' is not a regular expression",
        "sources[3].tags.latest (line 11): 'none' is not a number",
        "sources[3].tags.semver (line 11): 'what' is not a range",
        "limits.jobs (line 12): '0' is not a number from 1 to 64",
        "limits.rate (line 12): 'fast' is not a rate",
        "limits.pulls.docker.io (line 12): '80' is not a number of pulls",
    ):
        assert expected in told


@pytest.mark.parametrize("field", ["username: me", "password: hunter2", "token: abc"])
def test_credentials_are_never_inline_and_never_repeated(field: str) -> None:
    found = problems(
        "version: 1\n"
        "sources: [{image: a, to: r.example/a}]\n"
        f"registries: {{docker.io: {{credentials: {{{field}}}}}}}\n"
    )

    assert "credentials are named, never written here" in found[0]
    assert "hunter2" not in "".join(found)


def test_what_should_name_a_variable_is_not_repeated_because_it_may_be_the_secret() -> None:
    found = problems(
        "version: 1\n"
        "sources: [{image: a, to: r.example/a}]\n"
        "registries: {docker.io: {credentials: {username-env: U, password-env: 'hunter-2!'}}}\n"
    )

    assert "is not the name of an environment variable" in found[0].replace("this is not", "is not")
    assert "hunter" not in found[0]


@pytest.mark.parametrize(
    "text", ["", "[]", "just text", "version: 1", "sources: []", "version: 1\nsources: {}"]
)
def test_files_without_sources_are_refused(text: str) -> None:
    assert problems(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1\nversion: 1", "twice"),
        ("a: !!python/object:os.system {}", "YAML tag"),
        ("a: !!int 3", "YAML tag"),
        ("a: [", "is not YAML"),
        ("a: 1\n---\nb: 2", "several YAML documents"),
        ("a: &a [*a]", "deeper than"),
        ("? [1]\n: 2", "key that is not text"),
        ("a: {<<: b}", "merges what is no mapping (line 1)"),
        ("a: {<<: [{b: 1}, c]}", "merges what is no mapping (line 1)"),
        ("a: \t1\n\t- b", "is not YAML"),
    ],
)
def test_yaml_that_readers_could_disagree_about_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidContent) as caught:
        read(text)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 50_000,
        "a: " + "{a: " * 30 + "1" + "}" * 30,
        "x" * (1 << 20) + "x",
        "a0: &a0 [x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]\n" for i in range(1, 10)),
        "a: &a x\nb: [" + "*a, " * 101 + "]",
    ],
    ids=["deep", "deep mapping", "large", "laughs", "many aliases"],
)
def test_a_small_hostile_file_is_refused_before_it_becomes_large(text: str) -> None:
    with pytest.raises(UnsafeContent):
        read(text)


def test_aliases_and_merges_within_bounds_are_read() -> None:
    file = read(
        """
version: 1
sources:
  - &common
    image: alpine:3.20
    to: r.example/a
    platforms: [linux/amd64]
  - <<: *common
    image: alpine:3.21
  - <<: [{platforms: [linux/arm64]}, *common]
    image: alpine:3.22
"""
    )
    # Of several the first one counts, as YAML has it.
    assert file.rules[2].options.platforms == (Platform.parse("linux/arm64"),)
    assert file.rules[2].options.to == file.rules[0].options.to
    assert file.rules[1].options == file.rules[0].options
    assert file.rules[1].source == Reference.parse("alpine:3.21")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidContent, match="not UTF-8"):
        parse(b"\xff\xfe\x00")
