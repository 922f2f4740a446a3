"""The documents of an image, as docker, buildkit and the specification write them, and as enemies do."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ocitool import limits, mediatypes
from ocitool.digest import Digest
from ocitool.errors import IntegrityError, InvalidContent, UnsafeContent, Unsupported
from ocitool.model import Descriptor, ImageConfig, Index, Manifest, parse_manifest, sniff_media_type
from ocitool.platforms import Platform

A, B, C = ("sha256:" + digit * 64 for digit in "abc")


def descriptor(**changes: Any) -> dict[str, Any]:
    value = {"mediaType": mediatypes.OCI_LAYER_GZIP, "digest": A, "size": 5, **changes}
    return {key: item for key, item in value.items() if item != "missing"}


def manifest(**changes: Any) -> bytes:
    value = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": descriptor(mediaType=mediatypes.OCI_CONFIG, digest=B),
        "layers": [descriptor()],
        **changes,
    }
    return json.dumps({key: item for key, item in value.items() if item != "missing"}).encode()


def index(**changes: Any) -> bytes:
    value = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_INDEX,
        "manifests": [descriptor(mediaType=mediatypes.OCI_MANIFEST)],
        **changes,
    }
    return json.dumps({key: item for key, item in value.items() if item != "missing"}).encode()


def config(**changes: Any) -> bytes:
    value = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [A]},
        **changes,
    }
    return json.dumps({key: item for key, item in value.items() if item != "missing"}).encode()


# Descriptors


def test_a_descriptor_says_everything_that_the_specification_knows() -> None:
    value = {
        "mediaType": mediatypes.OCI_MANIFEST,
        "digest": str(Digest.of(b"{}")),
        "size": 2,
        "urls": ["https://example.com/example-manifest"],
        "annotations": {"a": "", "b": "c"},
        "data": "e30=",
        "artifactType": "application/vnd.example.sbom.v1",
        "platform": {
            "architecture": "arm64",
            "os": "linux",
            "os.version": "1",
            "os.features": ["f"],
            "variant": "v9",
        },
    }
    desc = Descriptor.from_json(value, "it")
    assert desc.data == b"{}"
    assert desc.platform == Platform("linux", "arm64", "v9", "1", ("f",))
    assert desc.to_json() == value
    assert Descriptor.from_json(desc.to_json(), "it") == desc
    assert str(desc) == value["digest"]


def test_the_specifications_empty_descriptor_carries_its_content() -> None:
    desc = Descriptor.from_json(
        {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
            "data": "e30=",
        },
        "it",
    )
    assert desc.data == b"{}"
    assert desc == Descriptor.of(mediatypes.OCI_EMPTY, b"{}")


def test_descriptors_of_the_same_content_are_equal_whatever_else_they_say() -> None:
    plain = Descriptor.from_json(descriptor(), "it")
    rich = Descriptor.from_json(descriptor(annotations={"a": "b"}, platform={"os": "linux"}), "it")
    assert plain == rich
    assert len({plain, rich}) == 1
    assert plain != Descriptor.from_json(descriptor(size=6), "it")


def test_what_is_optional_may_be_null_and_what_is_not_known_is_left_alone() -> None:
    nulls = dict.fromkeys(("urls", "annotations", "data", "artifactType", "platform"))
    desc = Descriptor.from_json(descriptor(**nulls, newField={"x": 1}), "it")
    assert desc.to_json() == descriptor()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"mediaType": "missing"}, "mediaType", id="no_media_type"),
        pytest.param({"mediaType": 1}, "mediaType", id="media_type_not_a_string"),
        pytest.param({"mediaType": ""}, "media type ''", id="media_type_empty"),
        pytest.param({"mediaType": "tar"}, "media type", id="media_type_without_a_slash"),
        pytest.param({"mediaType": "a/b\r\nX: y"}, "media type", id="media_type_with_a_header"),
        pytest.param({"mediaType": "a/b\n"}, "media type", id="media_type_with_trailing_newline"),
        pytest.param({"mediaType": "a/" + "b" * 300}, "media type", id="media_type_too_long"),
        pytest.param({"digest": "sha256:" + "!" * 10_000}, "not a digest", id="digest_too_long"),
        pytest.param({"digest": "sha256:" + "a" * 10_000}, "not a digest", id="digest_much_too_long"),
        pytest.param({"mediaType": "a/é"}, "media type", id="media_type_not_ascii"),
        pytest.param({"digest": "missing"}, "digest", id="no_digest"),
        pytest.param({"digest": None}, "digest", id="digest_null"),
        pytest.param(
            {"digest": "sha256:../../../../etc/passwd"}, "not a digest", id="im_01_digest_is_a_path"
        ),
        pytest.param({"digest": A.upper()}, "not a digest", id="rc_16_digest_in_upper_case"),
        pytest.param({"digest": A + "\n"}, "not a digest", id="rc_16_digest_with_trailing_newline"),
        pytest.param({"size": "missing"}, "size", id="no_size"),
        pytest.param({"size": -1}, "size -1", id="rc_12_negative_size"),
        pytest.param({"size": 1 << 63}, "size", id="rc_12_size_of_2_to_the_63"),
        pytest.param({"size": True}, "size True", id="rc_12_size_true"),
        pytest.param({"size": "12"}, "size '12'", id="rc_12_size_is_a_string"),
        pytest.param({"size": None}, "size None", id="rc_12_size_null"),
        pytest.param({"size": 5.0}, "size 5.0", id="rc_12_size_is_a_float"),
        pytest.param({"size": [5]}, "size", id="rc_12_size_is_a_list"),
        pytest.param({"urls": "https://example.com"}, "urls", id="urls_not_a_list"),
        pytest.param({"urls": [1]}, "urls", id="urls_not_strings"),
        pytest.param({"annotations": []}, "annotations", id="annotations_are_a_list"),
        pytest.param({"annotations": {"a": 1}}, "annotations", id="annotation_not_a_string"),
        pytest.param({"annotations": {"a": None}}, "annotations", id="annotation_null"),
        pytest.param({"artifactType": 1}, "artifactType", id="artifact_type_not_a_string"),
        pytest.param({"platform": "linux/amd64"}, "platform", id="platform_is_a_string"),
        pytest.param({"platform": {"os": 1}}, "os of platform", id="os_not_a_string"),
        pytest.param(
            {"platform": {"os": "linux", "os.features": "f"}}, "os.features", id="features_not_a_list"
        ),
        pytest.param({"data": 1}, "data", id="im_04_data_not_a_string"),
        pytest.param({"data": "a"}, "not base64", id="im_04_data_of_half_a_byte"),
        pytest.param({"data": "aGVsbG8"}, "not base64", id="im_04_data_without_padding"),
        pytest.param({"data": "aGVs\nbG8="}, "not base64", id="im_04_data_with_a_newline"),
        pytest.param({"data": "_-__"}, "not base64", id="im_04_data_in_the_url_alphabet"),
        pytest.param({"data": "aGVsbGé="}, "not base64", id="im_04_data_not_ascii"),
        pytest.param({"Digest": B}, "'Digest'", id="rc_09_digest_in_two_spellings"),
        pytest.param({"\N{LATIN SMALL LETTER LONG S}ize": 1}, "some parsers", id="rc_09_size_with_a_long_s"),
    ],
)
def test_refuses_descriptors(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidContent, match="layers") as caught:
        Descriptor.from_json(descriptor(**changes), "layers[0]")
    assert says in caught.value.message
    assert len(caught.value.message) < 350


@pytest.mark.parametrize("value", [None, [], "sha256:a", 1, True])
def test_refuses_what_is_no_object(value: object) -> None:
    with pytest.raises(InvalidContent, match="missing or not an object"):
        Descriptor.from_json(value, "config")


@pytest.mark.parametrize("number", ["NaN", "1e400", "1" * 100, "-1"])
def test_rc_12_refuses_sizes_that_are_no_number_of_bytes(number: str) -> None:
    raw = manifest().replace(b'"size": 5', b'"size": ' + number.encode())
    with pytest.raises(InvalidContent):
        Manifest.parse(raw, mediatypes.OCI_MANIFEST)


def test_reads_media_types_with_parameters_and_the_largest_size() -> None:
    desc = Descriptor.from_json(descriptor(mediaType="text/plain; charset=utf-8", size=(1 << 63) - 1), "it")
    assert (desc.media_type, desc.size) == ("text/plain; charset=utf-8", (1 << 63) - 1)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        pytest.param(b"hellO", 5, id="im_04_data_is_not_of_the_digest"),
        pytest.param(b"hello", 4, id="im_04_data_is_not_of_the_size"),
        pytest.param(b"", 5, id="im_04_data_empty"),
        pytest.param(b"\x00" * (3 << 20), 5, id="im_04_data_of_3_mib"),
    ],
)
def test_refuses_data_that_lies(data: bytes, size: int) -> None:
    lie = descriptor(digest=str(Digest.of(b"hello")), size=size, data=base64.b64encode(data).decode())
    with pytest.raises(IntegrityError, match="not the content") as caught:
        Descriptor.from_json(lie, "config")
    assert caught.value.expected == str(Digest.of(b"hello"))


def test_an_algorithm_that_is_not_registered_is_unsupported() -> None:
    with pytest.raises(Unsupported):
        Descriptor.from_json(descriptor(digest="sha384:" + "a" * 96), "it")


# Manifests

DOCKER_MANIFEST = b"""{
   "schemaVersion": 2,
   "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
   "config": {
      "mediaType": "application/vnd.docker.container.image.v1+json",
      "size": 1470,
      "digest": "sha256:9c7a54a9a43cca047013b82af109fe963fde787f63f9e016fdc3384500c2823d"
   },
   "layers": [
      {
         "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
         "size": 2457,
         "digest": "sha256:719385e32844401d57ecfd3eacab360bf551a1491c05b85806ed8f1b08d792f6"
      },
      {
         "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
         "size": 1000,
         "digest": "sha256:0d1f7a7ff4cba8c6f6c5ae5cf1b7ae5e0bd7c5ab0d4bd0cf4f0d0c5aa6a2c4d1",
         "urls": ["https://example.com/layer"]
      }
   ]
}"""


def test_reads_dockers_manifest() -> None:
    parsed = Manifest.parse(DOCKER_MANIFEST, mediatypes.DOCKER_MANIFEST)
    assert parsed.raw == DOCKER_MANIFEST
    assert parsed.config.size == 1470
    assert [layer.size for layer in parsed.layers] == [2457, 1000]
    assert [mediatypes.is_nondistributable(layer.media_type) for layer in parsed.layers] == [False, True]
    assert parsed.children == (parsed.config, *parsed.layers)
    assert parsed.kind == mediatypes.DOCKER_CONFIG


def test_reads_the_specifications_example_with_a_subject() -> None:
    subject = descriptor(mediaType=mediatypes.OCI_MANIFEST, digest=C)
    raw = manifest(subject=subject, annotations={"com.example.key1": "value1"})
    parsed = Manifest.parse(raw, mediatypes.OCI_MANIFEST)
    assert parsed.subject == Descriptor.from_json(subject, "it")
    assert parsed.annotations == {"com.example.key1": "value1"}
    assert parsed.subject not in parsed.children


def test_an_artifact_is_called_by_its_type_else_by_its_configs() -> None:
    assert Manifest.parse(manifest(artifactType="a/b"), mediatypes.OCI_MANIFEST).kind == "a/b"
    for nothing in ("", None, "missing"):
        parsed = Manifest.parse(manifest(artifactType=nothing), mediatypes.OCI_MANIFEST)
        assert parsed.kind == mediatypes.OCI_CONFIG


def test_reads_types_that_it_does_not_know() -> None:
    raw = manifest(
        config=descriptor(mediaType="application/vnd.example.config.v1+json"),
        layers=[descriptor(mediaType="application/vnd.example.data.v1.tar+gzip")],
        artifactType="application/vnd.example+type",
        inventedLater=[1],
    )
    assert Manifest.parse(raw, mediatypes.OCI_MANIFEST).artifact_type == "application/vnd.example+type"


@pytest.mark.parametrize("layers", [[], None])
def test_a_manifest_without_layers_is_read(layers: object) -> None:
    assert Manifest.parse(manifest(layers=layers), mediatypes.OCI_MANIFEST).layers == ()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        pytest.param(manifest(manifests=[]), "could be an image or an index", id="rc_09_both_lists"),
        pytest.param(manifest(manifests=None), "could be", id="rc_09_both_lists_one_null"),
        pytest.param(manifest(Manifests=[]), "only some parsers", id="rc_09_both_lists_in_other_spelling"),
        pytest.param(manifest(LAYERS=[]), "only some parsers", id="rc_09_layers_twice_in_other_spelling"),
        pytest.param(
            manifest(mediaType=mediatypes.OCI_INDEX), "announced", id="rc_09_says_that_it_is_an_index"
        ),
        pytest.param(manifest(mediaType=mediatypes.DOCKER_MANIFEST), "announced", id="rc_09_says_docker"),
        pytest.param(manifest(mediaType=1), "mediaType", id="rc_09_media_type_is_a_number"),
        pytest.param(manifest(schemaVersion=1), "schemaVersion 1", id="schema_1"),
        pytest.param(manifest(schemaVersion="2"), "schemaVersion '2'", id="schema_version_is_a_string"),
        pytest.param(manifest(schemaVersion=2.0), "schemaVersion 2.0", id="schema_version_is_a_float"),
        pytest.param(manifest(schemaVersion="missing"), "schemaVersion None", id="no_schema_version"),
        pytest.param(manifest(config="missing"), "config", id="no_config"),
        pytest.param(manifest(layers="missing"), "layers", id="no_layers"),
        pytest.param(manifest(layers={}), "layers", id="layers_are_an_object"),
        pytest.param(manifest(layers=[None]), "layers[0]", id="a_layer_is_null"),
        pytest.param(
            manifest(layers=[descriptor(), descriptor(size=-1)]), "layers[1]", id="second_layer_bad"
        ),
        pytest.param(manifest(subject=[]), "subject", id="subject_is_a_list"),
        pytest.param(manifest(annotations={"a": []}), "annotations", id="annotations_not_strings"),
        pytest.param(b"[]", "not a JSON object", id="a_list"),
        pytest.param(b'{"schemaVersion":2,"schemaVersion":2}', "twice", id="rc_23_duplicate_key"),
    ],
)
def test_refuses_manifests(raw: bytes, says: str) -> None:
    with pytest.raises(InvalidContent) as caught:
        Manifest.parse(raw, mediatypes.OCI_MANIFEST, "manifest of the test")
    assert says in caught.value.message
    assert "of the test" in caught.value.message


@pytest.mark.parametrize("level", ["config", "layers", "subject", "manifests"])
def test_im_01_a_digest_that_is_a_path_is_refused_at_every_level(level: str) -> None:
    path = descriptor(digest="sha256:../../../../etc/passwd")
    make, parse = (index, Index.parse) if level == "manifests" else (manifest, Manifest.parse)
    raw = make(**{level: [path] if level in {"layers", "manifests"} else path}, mediaType="missing")
    with pytest.raises(InvalidContent, match=rf"{level}.* is not a digest"):
        parse(raw, mediatypes.OCI_MANIFEST)


def test_a_manifest_that_does_not_say_what_it_is_is_what_it_was_announced_as() -> None:
    for media_type in (mediatypes.OCI_MANIFEST, mediatypes.DOCKER_MANIFEST):
        assert Manifest.parse(manifest(mediaType="missing"), media_type).media_type == media_type


# Indexes


DOCKER_LIST = b"""{
  "schemaVersion": 2,
  "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
  "manifests": [
    {
      "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
      "size": 528,
      "digest": "sha256:e692418e4cbaf90ca69d05a66403747baa33ee08806650b51fab815ad7fc331f",
      "platform": {"architecture": "amd64", "os": "linux", "features": ["sse4"]}
    },
    {
      "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
      "size": 528,
      "digest": "sha256:5b0bcabd1ed22e9fb1310cf6c2dec7cdef19f0ad69efa1f392e94a4333501270",
      "platform": {"architecture": "arm64", "os": "linux", "variant": "v8"}
    }
  ]
}"""


def test_reads_dockers_list() -> None:
    parsed = Index.parse(DOCKER_LIST, mediatypes.DOCKER_INDEX)
    assert [str(entry.platform) for entry in parsed.manifests] == ["linux/amd64", "linux/arm64"]
    assert parsed.children == parsed.manifests
    assert parsed.kind == ""


def test_reads_what_buildkit_writes() -> None:
    attestation = descriptor(
        mediaType=mediatypes.OCI_MANIFEST,
        digest=B,
        platform={"architecture": "unknown", "os": "unknown"},
        annotations={"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": A},
    )
    image = descriptor(mediaType=mediatypes.OCI_MANIFEST, platform={"architecture": "amd64", "os": "linux"})
    parsed = Index.parse(index(manifests=[image, attestation]), mediatypes.OCI_INDEX)
    platforms = [entry.platform for entry in parsed.manifests]
    assert [platform is not None and platform.is_unknown for platform in platforms] == [False, True]


def test_an_index_may_hold_any_type_nothing_and_a_subject() -> None:
    strange = descriptor(mediaType="application/vnd.oci.image.layer.v1.tar+gzip")
    parsed = Index.parse(
        index(manifests=[strange], subject=descriptor(), artifactType="a/b"), mediatypes.OCI_INDEX
    )
    assert (len(parsed.manifests), parsed.kind) == (1, "a/b")
    for manifests in ("[]", "null"):
        nothing = json.loads(manifests)
        assert Index.parse(index(manifests=nothing), mediatypes.OCI_INDEX).manifests == ()


@pytest.mark.parametrize("platform", [None, {}, {"os": "", "architecture": ""}])
def test_an_entry_that_names_no_system_has_no_platform(platform: object) -> None:
    entry = descriptor(mediaType=mediatypes.OCI_MANIFEST, platform=platform)
    parsed = Index.parse(index(manifests=[entry]), mediatypes.OCI_INDEX)
    assert parsed.manifests[0].platform is None


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        pytest.param(index(layers=[]), "could be an image or an index", id="rc_09_both_lists"),
        pytest.param(index(config=descriptor()), "could be", id="rc_09_config_in_an_index"),
        pytest.param(index(Layers=[]), "only some parsers", id="rc_09_both_lists_in_other_spelling"),
        pytest.param(index(mediaType=mediatypes.OCI_MANIFEST), "announced", id="rc_09_says_manifest"),
        pytest.param(index(manifests="missing"), "manifests", id="no_manifests"),
        pytest.param(index(manifests=[1]), "manifests[0]", id="entry_is_a_number"),
        pytest.param(index(schemaVersion=1), "schemaVersion", id="schema_1"),
    ],
)
def test_refuses_indexes(raw: bytes, says: str) -> None:
    with pytest.raises(InvalidContent) as caught:
        Index.parse(raw, mediatypes.OCI_INDEX)
    assert says in caught.value.message


def test_rc_22_refuses_an_index_of_more_entries_than_anyone_needs() -> None:
    with pytest.raises(UnsafeContent, match="at most"):
        Index.parse(index(manifests=[descriptor()] * (limits.INDEX_ENTRIES + 1)), mediatypes.OCI_INDEX)


def test_a_descriptor_decides_how_its_content_is_read() -> None:
    raw = manifest(mediaType="missing")
    assert isinstance(parse_manifest(raw, Descriptor.of(mediatypes.OCI_MANIFEST, raw)), Manifest)
    with pytest.raises(InvalidContent, match="index sha256:"):
        parse_manifest(raw, Descriptor.of(mediatypes.OCI_INDEX, raw))
    assert isinstance(parse_manifest(index(), Descriptor.of(mediatypes.OCI_INDEX, index())), Index)


@pytest.mark.parametrize(
    ("raw", "media_type"),
    [
        (DOCKER_MANIFEST, mediatypes.DOCKER_MANIFEST),
        (DOCKER_LIST, mediatypes.DOCKER_INDEX),
        (manifest(mediaType="missing"), mediatypes.OCI_MANIFEST),
        (index(mediaType="missing"), mediatypes.OCI_INDEX),
    ],
)
def test_finds_the_media_type_of_a_document_that_came_without_one(raw: bytes, media_type: str) -> None:
    assert sniff_media_type(raw, "it") == media_type


@pytest.mark.parametrize("raw", [b"{}", manifest(mediaType="missing", manifests=[])])
def test_rc_09_a_document_that_could_be_either_or_neither_has_no_media_type(raw: bytes) -> None:
    with pytest.raises(InvalidContent, match="has no media type"):
        sniff_media_type(raw, "it")


# Configurations


def test_reads_the_configuration_that_docker_writes() -> None:
    raw = config(
        config={
            "Hostname": "",
            "User": "alice",
            "ExposedPorts": {"8080/tcp": {}},
            "Env": ["PATH=/bin", "FOO=oci_is_a"],
            "Entrypoint": ["/bin/my-app-binary"],
            "Cmd": ["--foreground"],
            "Volumes": {"/var/log/my-app-logs": {}},
            "WorkingDir": "/home/alice",
            "Labels": {"com.example.project.git.url": "https://example.com/project.git"},
            "StopSignal": "SIGRTMIN+3",
            "Healthcheck": {"Test": ["CMD", "true"]},
        },
        rootfs={"type": "layers", "diff_ids": [A, B]},
        history=[{"created_by": "/bin/sh", "empty_layer": True}],
        container_config={},
        docker_version="20.10.8",
        variant="v3",
    )
    parsed = ImageConfig.parse(raw)
    assert parsed.platform == Platform("linux", "amd64", "v3")
    assert [str(diff_id) for diff_id in parsed.diff_ids] == [A, B]
    assert parsed.config["Env"] == ["PATH=/bin", "FOO=oci_is_a"]
    assert parsed.config["Healthcheck"] == {"Test": ["CMD", "true"]}
    assert parsed.fields["docker_version"] == "20.10.8"


def test_any_optional_field_of_a_configuration_may_be_null() -> None:
    keys = (
        *("created", "author", "variant", "os.version", "os.features"),
        *("config", "history"),
    )
    parsed = ImageConfig.parse(config(**dict.fromkeys(keys)))
    assert (parsed.platform, parsed.config) == (Platform("linux", "amd64"), {})
    execution = ("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels")
    assert ImageConfig.parse(config(config=dict.fromkeys((*execution, "StopSignal")))).config == {}


@pytest.mark.parametrize("diff_ids", [[], None, "missing"])
def test_an_image_without_layers_has_no_diff_ids(diff_ids: object) -> None:
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    if diff_ids == "missing":
        del rootfs["diff_ids"]
    assert ImageConfig.parse(config(rootfs=rootfs)).diff_ids == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"rootfs": "missing"}, "rootfs", id="no_rootfs"),
        pytest.param({"rootfs": {"diff_ids": []}}, "type None", id="no_rootfs_type"),
        pytest.param({"rootfs": {"type": "squashfs"}}, "type 'squashfs'", id="unknown_rootfs_type"),
        pytest.param({"rootfs": {"type": "layers", "diff_ids": A}}, "diff_ids", id="diff_ids_are_a_string"),
        pytest.param(
            {"rootfs": {"type": "layers", "diff_ids": {A: 1}}}, "diff_ids", id="diff_ids_are_an_object"
        ),
        pytest.param({"rootfs": {"type": "layers", "diff_ids": [1]}}, "diff_ids", id="diff_id_is_a_number"),
        pytest.param({"rootfs": {"type": "layers", "diff_ids": 1}}, "diff_ids", id="diff_ids_are_a_number"),
        pytest.param(
            {"rootfs": {"type": "layers", "diff_ids": [A, "../x"]}},
            "diff_ids[1]",
            id="im_01_diff_id_is_a_path",
        ),
        pytest.param({"os": 1}, "os", id="os_not_a_string"),
        pytest.param({"config": []}, "config", id="execution_is_a_list"),
        pytest.param({"config": ""}, "config", id="execution_is_a_string"),
        pytest.param({"config": {"User": 0}}, "User", id="user_is_a_number"),
        pytest.param({"config": {"Env": "PATH=/bin"}}, "Env", id="env_is_a_string"),
        pytest.param({"config": {"Cmd": [1]}}, "Cmd", id="cmd_is_not_strings"),
        pytest.param({"config": {"Entrypoint": {"a": 1}}}, "Entrypoint", id="entrypoint_is_an_object"),
        pytest.param({"config": {"Volumes": ["/a"]}}, "Volumes", id="volumes_are_a_list"),
        pytest.param({"config": {"ExposedPorts": 80}}, "ExposedPorts", id="ports_are_a_number"),
        pytest.param({"config": {"Labels": {"a": 1}}}, "Labels", id="label_is_a_number"),
        pytest.param({"config": {"StopSignal": 9}}, "StopSignal", id="signal_is_a_number"),
        pytest.param({"config": {"WorkingDir": ["/"]}}, "WorkingDir", id="working_directory_is_a_list"),
    ],
)
def test_refuses_configurations(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidContent) as caught:
        ImageConfig.parse(config(**changes), "config of the test")
    assert says in caught.value.message
    assert "of the test" in caught.value.message
