"""Garbage goes, and nothing else."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import threading
import time
from typing import TYPE_CHECKING

import pytest
from support import fixtures
from support.layout_content import blob, put, put_artifact, put_index

from ocitool.digest import Digest
from ocitool.errors import IntegrityError, NotFound, UnsafeContent
from ocitool.layout import LayoutStore
from ocitool.layout.gc import Garbage, collect, plan
from ocitool.layout.locks import GC_LOCK, lock
from ocitool.model import Descriptor
from ocitool.transfer import copy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """A layout that is not there yet."""
    return LayoutStore(tmp_path / "layout")


def stored(store: LayoutStore) -> set[Digest]:
    return {digest for digest, _ in store.blobs}


def swept(store: LayoutStore) -> Garbage:
    """Collect as another process would, after this one has ended."""
    store.close()
    return collect(LayoutStore(store.path))


def test_what_no_name_reaches_goes(store: LayoutStore) -> None:
    kept, lost = put_artifact(store, "kept"), put_artifact(store, "lost")
    store.tag(kept, "a")
    loose = put(store, b"loose")
    garbage = swept(store)
    assert {desc.digest for desc in garbage.blobs} == {lost.digest, Digest.of(b"lost"), loose.digest}
    assert garbage.size == lost.size + len(b"lost") + loose.size
    assert stored(store) == {kept.digest, Digest.of(b"kept"), Digest.of(b"{}")}
    assert swept(store) == Garbage((), (), ())


def test_a_plan_says_the_same_and_removes_nothing(store: LayoutStore) -> None:
    put_artifact(store, "lost")
    store.close()
    before = stored(store)
    planned = plan(LayoutStore(store.path))
    assert stored(store) == before
    assert swept(store) == planned


def test_what_names_other_content_goes_before_it(store: LayoutStore) -> None:
    """So that a process that dies on the way leaves nothing that lacks a part."""
    manifest = put_artifact(store, "text")
    inner = put_index(store, manifest)
    outer = put_index(store, inner, manifest)
    order = [desc.digest for desc in swept(store).blobs]
    assert order[:3] == [outer.digest, inner.digest, manifest.digest]


def test_every_way_of_being_a_root_keeps_content(store: LayoutStore) -> None:
    by_tag, by_digest = put_artifact(store, "tag"), put_artifact(store, "digest")
    store.tag(by_tag, "a")
    store.tag(by_digest, str(by_digest.digest))
    nested = put_artifact(store, "nested")
    store.tag(put_index(store, put_index(store, nested)), "index")
    before = stored(store)
    assert not swept(store).blobs
    assert stored(store) == before


def test_a_sparse_index_stays_sparse(store: LayoutStore) -> None:
    here = put_artifact(store, "here")
    elsewhere = Descriptor(here.media_type, Digest.of(b"elsewhere"), 9)
    store.tag(put_index(store, here, elsewhere), "a")
    assert not swept(store).blobs


def test_referrers_go_with_their_subject(store: LayoutStore) -> None:
    subject = put_artifact(store, "subject")
    store.tag(subject, "a")
    signature = put_artifact(store, "signature", subject=subject)
    of_signature = put_artifact(store, "of signature", subject=signature)
    assert not swept(store).roots
    store.untag("a")
    garbage = swept(store)
    assert set(garbage.roots) == {signature, of_signature}
    assert store.entries() == []
    assert stored(store) == set()


def test_a_referrer_whose_subject_was_never_here_stays(store: LayoutStore) -> None:
    elsewhere = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(b"elsewhere"), 9)
    put_artifact(store, "signature", subject=elsewhere)
    assert swept(store) == Garbage((), (), ())


def test_a_referrer_that_has_a_name_stays(store: LayoutStore) -> None:
    subject = put_artifact(store, "subject")
    signature = put_artifact(store, "signature", subject=subject)
    store.tag(signature, "signature")
    garbage = swept(store)
    assert {desc.digest for desc in garbage.blobs} == {subject.digest, Digest.of(b"subject")}
    assert store.resolve("signature") == signature


def test_documents_of_unknown_types_keep_what_they_mention(store: LayoutStore) -> None:
    layer = put(store, b"a model")
    document = json.dumps(
        {"mediaType": "application/vnd.future+json", "blobs": [{"digest": str(layer.digest)}]}
    )
    store.tag(put(store, document.encode(), "application/vnd.future+json"), "a")
    assert not swept(store).blobs


def test_a_damaged_manifest_stops_the_collection(store: LayoutStore) -> None:
    desc = put_artifact(store, "text")
    store.tag(desc, "a")
    (store.path / "blobs" / "sha256" / desc.digest.hex).write_bytes(b"x" * desc.size)
    loose = put(store, b"loose")
    with pytest.raises(IntegrityError) as caught:
        swept(store)
    assert "check" in caught.value.hint
    assert loose.digest in stored(store)


def test_damaged_garbage_is_garbage(store: LayoutStore) -> None:
    desc = put_artifact(store, "text")
    (store.path / "blobs" / "sha256" / desc.digest.hex).write_bytes(b"x" * desc.size)
    swept(store)
    assert stored(store) == set()


def test_a_link_among_the_blobs_is_removed_and_not_followed(store: LayoutStore, tmp_path: Path) -> None:
    put(store, b"x")
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (store.path / "blobs" / "sha256" / ("0" * 64)).symlink_to(victim)
    swept(store)
    assert stored(store) == set()
    assert victim.read_bytes() == b"precious"


def test_f_20_what_a_pull_has_added_or_found_is_not_collected(store: LayoutStore) -> None:
    first = LayoutStore(store.path)
    root = put_artifact(first, "old")
    first.close()
    puller = LayoutStore(store.path)
    assert puller.exists(root)  # found here, so it will not be copied
    assert puller.exists(blob(b"old"))
    assert puller.exists(blob(b"{}"))
    new = put(puller, b"new")
    collector = LayoutStore(store.path)
    collect(collector)
    assert stored(store) >= {root.digest, Digest.of(b"old"), new.digest}
    puller.tag(root, "a")
    puller.close()
    collect(collector)
    assert new.digest not in stored(store)
    assert collector.exists(root)


def test_f_20_a_manifest_that_a_pull_has_found_keeps_its_parts(store: LayoutStore) -> None:
    root = put_artifact(store, "text")
    store.close()
    puller = LayoutStore(store.path)
    assert puller.exists(root)
    collect(LayoutStore(store.path))
    assert Digest.of(b"text") in stored(store)


def test_f_20_it_is_said_how_much_processes_at_work_hold_back(store: LayoutStore) -> None:
    named, root = put_artifact(store, "named"), put_artifact(store, "found")
    store.tag(named, "a")
    store.close()
    puller = LayoutStore(store.path)
    assert puller.exists(named)  # which stays anyway, so nothing is held back by that
    assert puller.exists(root)
    new = put(puller, b"new")
    expected = root.size + len(b"found") + new.size
    assert plan(LayoutStore(store.path)).held == expected
    assert collect(LayoutStore(store.path)) == Garbage((), (), (), expected)
    puller.close()
    garbage = swept(store)
    assert (garbage.size, garbage.held) == (expected, 0)


def test_f_20_what_another_process_uses_loses_its_names_and_not_its_bytes(store: LayoutStore) -> None:
    desc = put_artifact(store, "text")
    store.tag(desc, "a")
    other = LayoutStore(store.path)
    other.delete(desc)
    assert other.entries() == []
    assert desc.digest in stored(store)
    store.close()
    swept(other)
    assert desc.digest not in stored(store)


def test_f_20_a_name_given_to_collected_content_is_refused(store: LayoutStore) -> None:
    desc = put_artifact(store, "text")
    swept(store)
    with pytest.raises(NotFound):
        store.tag(desc, "a")
    assert store.entries() == []


@pytest.mark.parametrize("look", [plan, collect])
def test_f_20_garbage_is_looked_for_while_nobody_looks_what_is_there(
    store: LayoutStore, look: Callable[[LayoutStore], Garbage]
) -> None:
    put(store, b"loose")
    store.close()
    looking = threading.Thread(target=look, args=(LayoutStore(store.path),))
    with lock(store.path, GC_LOCK, shared=True):
        looking.start()
        looking.join(0.3)
        assert looking.is_alive()
        assert Digest.of(b"loose") in stored(store)
    looking.join()


def test_young_blobs_can_be_spared_for_tools_that_hold_no_lease(store: LayoutStore) -> None:
    desc = put(store, b"loose")
    store.close()
    assert not collect(LayoutStore(store.path), min_age=3600).blobs
    path = store.path / "blobs" / "sha256" / desc.digest.hex
    os.utime(path, (0, time.time() - 3700))
    assert collect(LayoutStore(store.path), min_age=3600).blobs == (desc,)


def _partial(store: LayoutStore, content: bytes) -> Path:
    """Leave half of a blob, as an interrupted pull does."""
    with store.resume(blob(content)) as partial:
        assert partial is not None

        class Breaks(io.BytesIO):
            def read(self, n: int | None = -1, /) -> bytes:
                data = super().read(n)
                if not data:
                    raise UnsafeContent("cut")
                return data

        with pytest.raises(UnsafeContent):
            partial.push(Breaks(content[: len(content) // 2]))
    return store.path / ".ocitool" / "partial" / f"sha256-{Digest.of(content).hex}"


def test_f_25_partials_stay_until_they_are_stale(store: LayoutStore) -> None:
    path = _partial(store, b"content" * 100)
    assert not swept(store).leftovers
    os.utime(path, (0, time.time() - 8 * 86_400))
    assert [name for name, _ in swept(store).leftovers] == [str(path.relative_to(store.path))]
    assert not path.exists()


def test_f_25_a_partial_that_a_process_holds_stays_however_old(store: LayoutStore) -> None:
    path = _partial(store, b"content" * 100)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        os.utime(path, (0, 0))
        assert not swept(store).leftovers
    assert path.exists()


def test_f_25_temporary_files_of_dead_processes_go(store: LayoutStore) -> None:
    put(store, b"x")
    private = store.path / ".ocitool"
    (private / "index.json.0123456789abcdef").write_bytes(b"{")
    dead = private / "leases" / "0123456789abcdef"
    dead.write_bytes(b"")
    os.utime(dead, (0, 0))
    assert {name for name, _ in swept(store).leftovers} == {
        ".ocitool/index.json.0123456789abcdef",
        ".ocitool/leases/0123456789abcdef",
    }
    assert not dead.exists()


def test_im_07_f_25_links_among_the_private_files_go_and_lead_nowhere(
    store: LayoutStore, tmp_path: Path
) -> None:
    put(store, b"x")
    store.close()
    victim = tmp_path / "victim"
    victim.write_text(f"{Digest.of(b'x')}\n")
    for directory in ("leases", "partial"):
        planted = store.path / ".ocitool" / directory / "planted"
        planted.symlink_to(victim)
        os.utime(planted, (0, 0), follow_symlinks=False)
    # What is no lease says nothing of a crash, and names nothing that would have to stay.
    assert store.exists(blob(b"x"))
    store.close()
    garbage = collect(LayoutStore(store.path))
    assert {name for name, _ in garbage.leftovers} == {
        ".ocitool/leases/planted",
        ".ocitool/partial/planted",
    }
    assert Digest.of(b"x") not in stored(store)
    assert victim.read_text() == f"{Digest.of(b'x')}\n"
    assert not list((store.path / ".ocitool").glob("*/planted"))


def test_a_layout_that_another_tool_has_made_is_collected(store: LayoutStore) -> None:
    put(store, b"x")
    store.close()
    shutil.rmtree(store.path / ".ocitool")
    assert len(collect(LayoutStore(store.path)).blobs) == 1


def test_a_copy_after_a_collection_is_whole(store: LayoutStore) -> None:
    source = LayoutStore(fixtures.layout(), read_only=True)
    root = copy(source, store, "hello:1.0")
    store.untag("hello:1.0")
    swept(store)
    assert stored(store) == set()
    assert copy(source, store, "hello:1.0") == root
    assert not swept(store).blobs
