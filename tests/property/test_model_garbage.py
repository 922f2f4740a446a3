"""Documents from strangers are read, or refused with an error of ours; never anything else."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from property.strategies import descriptors, json_values, spoiled

from ocitool import mediatypes
from ocitool.errors import OciError
from ocitool.model import Descriptor, ImageConfig, Index, Manifest, sniff_media_type

manifests = st.fixed_dictionaries(
    {"schemaVersion": st.just(2), "config": descriptors(), "layers": st.lists(descriptors(), max_size=3)},
    optional={
        "mediaType": st.just(mediatypes.OCI_MANIFEST),
        "subject": descriptors(),
        "artifactType": st.sampled_from([None, "", "a/b"]),
        "annotations": st.dictionaries(st.text(), st.text(), max_size=2),
    },
)
indexes = st.fixed_dictionaries(
    {"schemaVersion": st.just(2), "manifests": st.lists(descriptors(), max_size=3)},
    optional={"mediaType": st.just(mediatypes.OCI_INDEX), "subject": descriptors()},
)
configs: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "os": st.just("linux"),
        "architecture": st.just("amd64"),
        "rootfs": st.fixed_dictionaries(
            {"type": st.just("layers"), "diff_ids": st.just(["sha256:" + "a" * 64])}
        ),
    },
    optional={
        "config": st.fixed_dictionaries(
            {},
            optional={
                "Env": st.lists(st.text(), max_size=2),
                "Cmd": st.none() | st.lists(st.text(), max_size=2),
                "Volumes": st.dictionaries(st.text(), st.just({}), max_size=2),
                "Labels": st.dictionaries(st.text(), st.text(), max_size=2),
                "User": st.text(),
            },
        )
    },
)


def raw(value: object) -> bytes:
    return json.dumps(value).encode()


@given(descriptors())
def test_a_valid_descriptor_is_read_and_written_again(value: dict[str, Any]) -> None:
    desc = Descriptor.from_json(value, "it")
    again = Descriptor.from_json(json.loads(raw(desc.to_json())), "it")
    assert again == desc
    assert again.to_json() == desc.to_json()


@given(manifests, indexes, configs)
def test_valid_documents_are_read(manifest: Any, index: Any, config: Any) -> None:
    assert len(Manifest.parse(raw(manifest), mediatypes.OCI_MANIFEST).layers) == len(manifest["layers"])
    assert len(Index.parse(raw(index), mediatypes.OCI_INDEX).manifests) == len(index["manifests"])
    assert len(ImageConfig.parse(raw(config)).diff_ids) == 1


@given(spoiled(descriptors()))
def test_a_spoiled_descriptor_is_read_or_refused(value: Any) -> None:
    with contextlib.suppress(OciError):
        Descriptor.from_json(value, "it")


@given(spoiled(manifests) | spoiled(indexes) | spoiled(configs) | json_values)
def test_spoiled_documents_are_read_or_refused(value: Any) -> None:
    for parse in (
        lambda: Manifest.parse(raw(value), mediatypes.OCI_MANIFEST),
        lambda: Index.parse(raw(value), mediatypes.OCI_INDEX),
        lambda: ImageConfig.parse(raw(value)),
        lambda: sniff_media_type(raw(value), "it"),
    ):
        with contextlib.suppress(OciError):
            parse()


@given(st.binary(max_size=100))
def test_bytes_are_read_or_refused(content: bytes) -> None:
    for parse in (
        lambda: Manifest.parse(content, mediatypes.OCI_MANIFEST),
        lambda: Index.parse(content, mediatypes.OCI_INDEX),
        lambda: ImageConfig.parse(content),
    ):
        with contextlib.suppress(OciError):
            parse()
