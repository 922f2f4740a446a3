"""Reading content from any source: verified, bounded, and not asked for where it is at hand."""

from __future__ import annotations

import pytest
from support.stores import FlakyStore, RecordingStore, lies, put, put_image, put_index

from ocitool import limits, mediatypes
from ocitool.content import open_verified, read_config, read_manifest, read_verified
from ocitool.digest import Digest
from ocitool.errors import IntegrityError, InvalidContent, UnsafeContent
from ocitool.model import Descriptor, Index, Manifest
from ocitool.platforms import Platform


def test_reads_what_a_descriptor_names_and_nothing_else() -> None:
    store = FlakyStore()
    desc = put(store, "a/b", b"hello")
    assert read_verified(store, desc) == b"hello"
    for lie in (b"jello", b"hell", b"hello!", b""):
        store.plan(desc, lies(lie))
        with pytest.raises(IntegrityError):
            read_verified(store, desc)


def test_rc_13_content_that_is_too_large_is_not_even_asked_for() -> None:
    store = RecordingStore()
    desc = put(store, "a/b", b"hello")
    assert read_verified(store, desc, limit=5) == b"hello"
    store.calls.clear()
    with pytest.raises(UnsafeContent, match="has 5 bytes; at most 4 are read"):
        read_verified(store, desc, limit=4)
    huge = Descriptor(mediatypes.OCI_MANIFEST, Digest.of(b""), limits.MANIFEST_BYTES + 1)
    with pytest.raises(UnsafeContent):
        read_manifest(store, huge)
    assert store.calls == []


def test_im_04_content_that_the_descriptor_carries_is_not_asked_for_but_verified() -> None:
    store = RecordingStore()
    desc = Descriptor.of("a/b", b"hello")
    carrying = Descriptor(desc.media_type, desc.digest, desc.size, data=b"hello")
    with open_verified(store, carrying) as reader:
        assert reader.read() == b"hello"
    assert store.calls == []
    lying = Descriptor(desc.media_type, desc.digest, desc.size, data=b"jello")
    with pytest.raises(IntegrityError):
        read_verified(store, lying)


def test_im_04_data_of_100_mib_is_in_no_manifest_that_is_read() -> None:
    store = RecordingStore()
    desc = Descriptor(mediatypes.OCI_MANIFEST, Digest.of(b"a"), (100 << 20) * 4 // 3)
    with pytest.raises(UnsafeContent):
        read_manifest(store, desc)
    assert store.asked("fetch") == []


def test_reads_manifests_indexes_and_configurations() -> None:
    store = RecordingStore()
    image = put_image(store, "linux/arm64")
    manifest = read_manifest(store, image)
    assert isinstance(manifest, Manifest)
    assert isinstance(read_manifest(store, put_index(store, [image])), Index)
    assert read_config(store, manifest).platform == Platform("linux", "arm64")


def test_a_configuration_that_is_none_is_refused_by_its_digest() -> None:
    store = RecordingStore()
    config = put(store, mediatypes.OCI_CONFIG, b"{}")
    manifest = read_manifest(store, put_image(store, fields={"config": config.to_json()}))
    assert isinstance(manifest, Manifest)
    with pytest.raises(InvalidContent, match=str(config.digest)):
        read_config(store, manifest)
