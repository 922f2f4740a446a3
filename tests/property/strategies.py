"""What the property tests draw from: valid names and documents, and things that look like them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ocitool import mediatypes
from ocitool.digest import Digest
from ocitool.platforms import Platform
from ocitool.reference import Reference

_LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"
_ALNUM = _LOWER + _LOWER[:26].upper()

json_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**39) + 1, 10**39)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
json_values: st.SearchStrategy[Any] = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)

digests = st.builds(Digest.of, st.binary(max_size=8), st.sampled_from(["sha256", "sha512"]))

components = st.lists(st.text(_LOWER, min_size=1, max_size=6), min_size=1, max_size=3).flatmap(
    lambda words: st.lists(
        st.sampled_from([".", "_", "__", "-", "---"]), min_size=len(words) - 1, max_size=len(words) - 1
    ).map(lambda seps: "".join(word + sep for word, sep in zip(words, [*seps, ""], strict=True)))
)
repositories = st.lists(components, min_size=1, max_size=4).map("/".join)
labels = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?", fullmatch=True)
_ports = st.integers(0, 65535).map(lambda port: f":{port}")
registries = (
    st.just("docker.io")
    | st.just("localhost")
    | st.builds("{}{}".format, st.just("localhost"), _ports)
    | st.builds("{}{}".format, labels, _ports)
    | st.lists(labels, min_size=2, max_size=4).map(".".join)
    | st.builds("{}{}".format, st.ip_addresses(v=6).map(lambda ip: f"[{ip}]"), st.just("") | _ports)
)
tags = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True)
references = st.builds(Reference, registries, repositories, st.just("") | tags, st.none() | digests)

_VARIANTS = ["", "v1", "v2", "v3", "v5", "v6", "v7", "v8", "8", "v8.0", "v8.2", "v9", "9.0", "v9.3", "power9"]
platforms = st.builds(
    Platform,
    st.sampled_from(["linux", "windows", "darwin", "macos", "Linux", "freebsd"]),
    st.sampled_from(
        ["amd64", "x86_64", "arm64", "aarch64", "arm", "armhf", "armel", "386", "i686", "riscv64"]
    ),
    st.sampled_from(_VARIANTS),
    st.sampled_from(["", "10.0.14393", "10.0.17763.1"]),
    st.sampled_from([(), ("win32k",), ("a", "b")]),
)

media_types = st.sampled_from(
    [
        mediatypes.OCI_INDEX,
        mediatypes.OCI_MANIFEST,
        mediatypes.OCI_CONFIG,
        mediatypes.OCI_LAYER_GZIP,
        mediatypes.DOCKER_INDEX,
        mediatypes.DOCKER_MANIFEST,
        "application/vnd.example.thing.v1+json",
    ]
)


def descriptors() -> st.SearchStrategy[dict[str, Any]]:
    """Descriptors as JSON, valid ones."""
    return st.fixed_dictionaries(
        {
            "mediaType": media_types,
            "digest": digests.map(str),
            "size": st.integers(0, (1 << 63) - 1),
        },
        optional={
            "annotations": st.none() | st.dictionaries(st.text(), st.text(), max_size=3),
            "urls": st.none() | st.lists(st.text(), max_size=2),
            "artifactType": st.none() | st.just("application/vnd.example+type"),
            "platform": st.fixed_dictionaries(
                {"os": st.sampled_from(["linux", "unknown"]), "architecture": st.just("arm64")},
                optional={"variant": st.sampled_from([None, "", "v8", "v9"])},
            ),
        },
    )


def spoiled(valid: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A valid JSON value in which one thing, anywhere, is something else or missing."""
    return st.tuples(valid, st.data(), json_values).map(_spoil)


def _spoil(drawn: tuple[Any, st.DataObject, Any]) -> Any:
    value, data, other = drawn
    if isinstance(value, dict) and value and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(value)))
        rest = {name: part for name, part in value.items() if name != key}
        if data.draw(st.booleans()):
            return rest
        return {**rest, key: _spoil((value[key], data, other))}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], _spoil((value[at], data, other)), *value[at + 1 :]]
    return other
