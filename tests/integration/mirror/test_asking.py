"""What the mirror asks of a registry's store beyond what every store can do."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from support.mirror_stores import push_image, push_signature

from ocitool import mediatypes
from ocitool.content import Inquirer, Publisher, read_verified
from ocitool.errors import IntegrityError, NotFound
from ocitool.mirror.planning import ListsByApi
from ocitool.model import Descriptor

if TYPE_CHECKING:
    from support.mirror_field import Field

pytestmark = pytest.mark.registry


def test_a_name_is_asked_about_without_being_read(between: Field) -> None:
    store = between.above("team/app")
    image = push_image(store, "a", tag="1.0")
    between.up.served.clear()

    assert isinstance(store, Inquirer)
    assert store.ask("1.0") == image
    assert store.ask(str(image.digest)) == image
    with pytest.raises(NotFound):
        store.ask("2.0")
    # The server may tell of the push only now.
    asked = {(r.method, r.route) for r in between.up.served if r.method != "PUT"}
    assert asked == {("HEAD", "manifest")}


def test_a_manifest_and_its_name_are_published_in_one_step(between: Field) -> None:
    store = between.below("team/app")
    image = push_image(store, "a", tag="1.0")
    raw = json.dumps({**json.loads(read_verified(store, image)), "annotations": {"a": "b"}}).encode()
    desc = Descriptor.of(mediatypes.OCI_MANIFEST, raw)

    assert isinstance(store, Publisher)
    store.publish(desc, io.BytesIO(raw), "1.1")

    assert between.below("team/app").resolve("1.1") == desc
    assert between.below("team/app").resolve(str(desc.digest)) == desc
    with pytest.raises(IntegrityError):
        store.publish(desc, io.BytesIO(raw + b" "), "1.2")
    assert list(store.tags()) == ["1.0", "1.1"]


def test_a_published_referrer_is_listed(between: Field) -> None:
    store = between.below("team/app")
    image = push_image(store, "a", tag="1.0")
    signature = push_signature(store, image)
    raw = json.dumps({**json.loads(read_verified(store, signature)), "annotations": {"a": "b"}}).encode()
    desc = Descriptor.of(mediatypes.OCI_MANIFEST, raw)

    store.publish(desc, io.BytesIO(raw), "signature")

    assert set(between.below("team/app").referrers(image)) == {signature, desc}


def test_a_registry_without_the_referrers_api_says_so(between: Field) -> None:
    store = between.below("team/app")
    image = push_image(store, "a", tag="1.0")
    assert isinstance(store, ListsByApi)

    without = between.kind == "docker-registry"
    for _ in range(2):
        assert store.referrers_by_api(image) == (None if without else [])
