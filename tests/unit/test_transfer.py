"""copy: what moves, in which order, and what happens when something fails."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.stores import (
    FlakyStore,
    MountingStore,
    RecordingStore,
    ResumingStore,
    breaks,
    lies,
    put,
    put_artifact,
    put_image,
    put_index,
    put_json,
)

from ocitool import limits, mediatypes, transfer
from ocitool.digest import Digest
from ocitool.errors import (
    IntegrityError,
    InvalidContent,
    NotFound,
    OciError,
    RegistryError,
    UnsafeContent,
    Unsupported,
)
from ocitool.events import Advanced, Event, Finished, Planned, Retrying, Started
from ocitool.graph import survey
from ocitool.layout import LayoutStore
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor, Index, parse_manifest
from ocitool.platforms import Platform
from ocitool.selection import Selection
from ocitool.transfer import copy, copy_graph, move
from ocitool.workers import each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ocitool.streams import Reader

LOST = RegistryError("the connection was lost", temporary=True)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_RETRY_DELAY", 0.001)


def digests(descs: Iterable[Descriptor]) -> set[str]:
    return {str(desc.digest) for desc in descs}


def layer_of(content: bytes) -> Descriptor:
    return Descriptor.of(mediatypes.OCI_LAYER_GZIP, content)


def content(store: MemoryStore, desc: Descriptor) -> bytes:
    with store.fetch(desc) as reader:
        return reader.read()


def children(store: MemoryStore, desc: Descriptor) -> tuple[Descriptor, ...]:
    return parse_manifest(content(store, desc), desc).children


def reachable(store: MemoryStore, root: Descriptor) -> set[Descriptor]:
    """Everything under a root, by the plainest walk there is."""
    below = children(store, root) if root.is_manifest else ()
    return {root}.union(*(reachable(store, child) for child in below))


def fat(store: MemoryStore) -> Descriptor:
    """An index of two platforms whose images share a layer, tagged `1`."""
    index = put_index(
        store,
        [
            put_image(store, layers=[b"shared", b"amd"], platform="linux/amd64", marked=True),
            put_image(store, layers=[b"shared", b"arm"], platform="linux/arm64", marked=True),
        ],
    )
    store.tag(index, "1")
    return index


# What moves, and in which order


@pytest.mark.parametrize("jobs", [1, 2, 16])
def test_copies_all_that_a_tag_names(jobs: int) -> None:
    src, dst = MemoryStore(), RecordingStore()
    root = fat(src)
    assert copy(src, dst, "1", jobs=jobs) == root
    assert dst.resolve("1") == root
    everything = reachable(src, root)
    assert sorted(dst.asked("push")) == sorted(digests(everything))
    assert {desc: content(dst, desc) for desc in everything} == {
        desc: content(src, desc) for desc in everything
    }


def test_blobs_come_before_manifests_and_the_name_last() -> None:
    src, dst = MemoryStore(), RecordingStore()
    root = fat(src)
    copy(src, dst, "1")
    order = {name: at for at, (verb, name) in enumerate(dst.calls) if verb == "push"}
    assert dst.calls[-1] == ("tag", "1")
    assert dst.calls[-2] == ("push", str(root.digest))
    manifests = [desc for desc in reachable(src, root) if desc.is_manifest]
    for parent in manifests:
        for child in children(src, parent):
            assert order[str(child.digest)] < order[str(parent.digest)]


def test_children_come_before_parents_in_a_diamond() -> None:
    src, dst = MemoryStore(), RecordingStore()
    image = put_image(src)
    left = put_index(src, [image])
    right = put_index(src, [image, left])
    root = put_index(src, [right, image, left], fields={"annotations": {"a": "b"}})
    src.tag(root, "1")
    copy(src, dst, "1")
    pushed = [name for name in dst.asked("push") if name in digests([image, left, right, root])]
    assert pushed == [str(desc.digest) for desc in (image, left, right, root)]


def test_a_second_copy_moves_nothing() -> None:
    src, dst = RecordingStore(), RecordingStore()
    root = fat(src)
    copy(src, dst, "1")
    src.calls.clear()
    dst.calls.clear()
    events: list[Event] = []
    copy(src, dst, "1", on_event=events.append)
    assert dst.calls == [("tag", "1")]
    assert set(src.asked("fetch")) <= {str(desc.digest) for desc in reachable(src, root) if desc.is_manifest}
    assert {event.how for event in events if isinstance(event, Finished)} == {"skipped"}
    assert not any(isinstance(event, Started | Advanced) for event in events)


def test_only_what_is_lacking_moves() -> None:
    src, dst = MemoryStore(), RecordingStore()
    root = fat(src)
    put(dst, mediatypes.OCI_LAYER_GZIP, b"shared")
    put(dst, mediatypes.OCI_LAYER_GZIP, b"amd")
    dst.calls.clear()
    copy(src, dst, "1")
    lacking = digests(reachable(src, root)) - {str(Digest.of(b"shared")), str(Digest.of(b"amd"))}
    assert sorted(dst.asked("push")) == sorted(lacking)


def test_one_blob_that_two_manifests_call_by_different_types_moves_once() -> None:
    src, dst = RecordingStore(), RecordingStore()
    layers = [b"the same bytes"]
    oci = put_image(src, layers=layers)
    docker = put_image(
        src, layers=layers, media_type=mediatypes.DOCKER_MANIFEST, layer_type=mediatypes.DOCKER_LAYER_GZIP
    )
    src.tag(put_index(src, [oci, docker]), "1")
    src.calls.clear()
    copy(src, dst, "1")
    assert dst.asked("push").count(str(Digest.of(layers[0]))) == 1
    assert src.asked("fetch").count(str(Digest.of(layers[0]))) == 1


def test_a_manifest_that_is_also_a_blob_of_another_is_copied_whole() -> None:
    src, dst = MemoryStore(), MemoryStore()
    inner = put_image(src, layers=[b"inner layer"])
    as_blob = Descriptor("application/vnd.test.blob", inner.digest, inner.size)
    outer = put_image(src, layers=[as_blob])
    src.tag(put_index(src, [outer, put_index(src, [inner])]), "1")
    copy(src, dst, "1")
    assert dst.exists(layer_of(b"inner layer"))


def test_a_lone_manifest_nested_indexes_and_no_children_are_copied_too() -> None:
    src, dst = MemoryStore(), MemoryStore()
    nested = put_image(src)
    for _ in range(limits.INDEX_NESTING - 1):
        nested = put_index(src, [nested])
    for root in (put_image(src, layers=[]), put_index(src, []), nested):
        src.tag(root, "1")
        assert copy(src, dst, "1") == root
        assert all(dst.exists(desc) for desc in reachable(src, root))


def test_content_of_unknown_types_is_copied_whatever_its_size() -> None:
    src, dst = MemoryStore(), MemoryStore()
    strange = put(src, "application/vnd.example.index.v9+json", b'{"manifests":[{}]}')
    large = put(src, "application/vnd.example.data", b"x" * (limits.MANIFEST_BYTES + 1))
    src.tag(put_index(src, [strange, large]), "1")
    src.tag(large, "2")
    copy(src, dst, "1")
    assert copy(src, dst, "2") == large
    assert content(dst, strange) == b'{"manifests":[{}]}'


def test_layers_that_may_not_be_distributed_stay_where_they_are() -> None:
    src, dst = MemoryStore(), MemoryStore()
    foreign = Descriptor.of(mediatypes.DOCKER_LAYER_FOREIGN + ".gzip", b"windows")
    old = Descriptor.of(mediatypes.OCI_LAYER_NONDISTRIBUTABLE + "+zstd", b"old windows")
    src.tag(put_image(src, layers=[foreign, old, b"ours"]), "1")
    root = copy(src, dst, "1")
    assert not dst.exists(foreign)
    assert not dst.exists(old)
    assert dst.exists(layer_of(b"ours"))
    assert foreign in children(dst, root)


def test_content_that_a_descriptor_carries_is_not_asked_for() -> None:
    src, dst = RecordingStore(), RecordingStore()
    config = Descriptor.of(mediatypes.OCI_EMPTY, b"{}")
    carrying = {**config.to_json(), "data": "e30="}
    src.tag(put_image(src, fields={"config": carrying}), "1")
    copy(src, dst, "1")
    assert str(config.digest) not in src.asked("fetch")
    assert dst.exists(config)


def test_another_name_a_digest_or_no_name_at_all() -> None:
    src, dst = MemoryStore(), MemoryStore()
    root = fat(src)
    copy(src, dst, "1", to="two")
    assert list(dst.tags()) == ["two"]
    other = MemoryStore()
    copy(src, other, str(root.digest))
    assert list(other.tags()) == []
    assert other.resolve(str(root.digest)) == root


def test_a_digest_that_is_not_the_contents_own_is_refused_before_anything_moves() -> None:
    src, dst = MemoryStore(), RecordingStore()
    root = fat(src)
    with pytest.raises(IntegrityError) as caught:
        copy(src, dst, "1", to=str(Digest.of(b"other")))
    assert (caught.value.expected, caught.value.actual) == (str(Digest.of(b"other")), str(root.digest))
    assert dst.calls == []


# Events


def test_events_add_up() -> None:
    src, dst = MemoryStore(), MemoryStore()
    root = fat(src)
    events: list[Event] = []
    copy(src, dst, "1", on_event=events.append, jobs=1)
    everything = reachable(src, root)
    assert isinstance(events[0], Planned)
    assert set(events[0].descriptors) == everything
    assert len(events[0].descriptors) == len(everything)
    for desc in everything:
        mine = [event for event in events[1:] if getattr(event, "descriptor", None) == desc]
        assert mine[0] == Started(desc)
        assert mine[-1] == Finished(desc, "copied")
        assert sum(event.count for event in mine if isinstance(event, Advanced)) == desc.size


@pytest.mark.parametrize("kind", [Planned, Started, Advanced, Finished])
@pytest.mark.parametrize("jobs", [1, 4])
def test_a_listener_that_raises_cancels_the_copy(kind: type[Event], jobs: int) -> None:
    class Enough(Exception):
        pass

    def listen(event: Event) -> None:
        if isinstance(event, kind):
            raise Enough

    src, dst = MemoryStore(), RecordingStore()
    root = fat(src)
    with pytest.raises(Enough):
        copy(src, dst, "1", on_event=listen, jobs=jobs)
    assert not dst.exists(root)
    assert dst.asked("tag") == []


# Failures


class UnhurriedStore(FlakyStore):
    """Takes a moment for each fetch, as a network does: what else goes on gets its turn."""

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        time.sleep(0.05)
        with super().fetch(desc, offset=offset) as reader:
            yield reader


def test_the_first_failure_stops_the_rest_and_keeps_its_type_and_its_notes() -> None:
    src, dst = UnhurriedStore(), RecordingStore()
    layers = [bytes([n]) * (1000 - n) for n in range(100)]
    image = put_image(src, layers=layers)
    src.tag(image, "1")
    failure = RegistryError("refused", status=403, codes=("DENIED",), hint="ask")
    failure.add_note("from below")
    src.plan(layer_of(layers[1]), breaks(failure, 10))
    src.calls.clear()
    with pytest.raises(RegistryError) as caught:
        copy(src, dst, "1", jobs=2)
    assert caught.value is failure
    assert (failure.status, failure.codes, failure.hint) == (403, ("DENIED",), "ask")
    assert failure.__notes__ == [
        "from below",
        f"while copying {mediatypes.OCI_LAYER_GZIP} {Digest.of(layers[1])}",
    ]
    assert len(src.asked("fetch")) < 50
    assert not dst.exists(image)
    assert dst.asked("tag") == []


def test_a_failure_leaves_no_thread_behind() -> None:
    src = FlakyStore()
    image = put_image(src, layers=[b"a", b"b", b"c"])
    src.plan(layer_of(b"b"), breaks(OciError("no"), 0))
    before = threading.enumerate()  # some may be ending still, of copies that were interrupted
    with pytest.raises(OciError, match="no"):
        copy_graph(src, MemoryStore(), image, to="1")
    assert not [thread for thread in threading.enumerate() if thread not in before]


def test_transfers_on_their_way_end_when_another_fails() -> None:
    started = threading.Event()

    class Slow(io.BytesIO):
        def read(self, n: int | None = -1, /) -> bytes:
            started.set()
            time.sleep(0.01)
            return b"x"

    def fail(_: bytes) -> Reader:
        started.wait(60)
        raise RegistryError("refused")

    src, dst = FlakyStore(), MemoryStore()
    slow = Descriptor("a/b", Digest.of(b"endless"), 1 << 40)
    src.push(layer_of(b"endless"), io.BytesIO(b"endless"))
    bad = put(src, "a/b", b"bad")
    image = put_image(src, layers=[slow, bad])
    src.plan(slow, lambda _: Slow())
    src.plan(bad, fail)
    before = time.perf_counter()
    with pytest.raises(RegistryError, match="refused"):
        copy_graph(src, dst, image, to="1", jobs=2)
    assert time.perf_counter() - before < 60  # it never ends


def test_wrong_bytes_get_one_clean_retry() -> None:
    src, dst = FlakyStore(), MemoryStore()
    image = put_image(src, layers=[b"layer"])
    layer = layer_of(b"layer")
    src.plan(layer, lies(b"liar!"))
    events: list[Event] = []
    copy_graph(src, dst, image, to="1", on_event=events.append)
    assert [event.what for event in events if isinstance(event, Retrying)] == [str(layer.digest)]
    assert content(dst, layer) == b"layer"


@pytest.mark.parametrize("lie", [b"liar!", b"layer and more", b"lay", b""])
def test_rc_12_bytes_that_are_wrong_twice_are_refused(lie: bytes) -> None:
    src, dst = FlakyStore(), RecordingStore()
    image = put_image(src, layers=[b"layer"])
    layer = layer_of(b"layer")
    src.plan(layer, lies(lie), lies(lie))
    src.calls.clear()
    with pytest.raises(IntegrityError) as caught:
        copy_graph(src, dst, image, to="1")
    assert caught.value.__notes__ == [f"while copying {mediatypes.OCI_LAYER_GZIP} {layer.digest}"]
    assert src.asked("fetch").count(str(layer.digest)) == 2
    assert not dst.exists(layer)
    assert not dst.exists(image)


def test_rc_10_a_manifest_with_wrong_bytes_gets_one_clean_retry_too() -> None:
    src, dst = FlakyStore(), MemoryStore()
    image = put_image(src)
    src.plan(image, lies(b"{}"))
    copy_graph(src, dst, image, to="1")
    assert dst.exists(image)
    src.plan(image, lies(b"{}"), lies(b"{}"))
    with pytest.raises(IntegrityError):
        copy_graph(src, MemoryStore(), image, to="1")


def test_rc_15_wrong_bytes_after_a_lost_connection_still_get_their_clean_retry() -> None:
    src, dst = FlakyStore(), ResumingStore()
    image = put_image(src, layers=[b"0123456789"])
    layer = layer_of(b"0123456789")
    src.plan(layer, breaks(LOST, 4), lies(b"xxxxxx"))
    starts: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, Started) and event.descriptor == layer:
            starts.append(event.offset)

    copy_graph(src, dst, image, to="1", on_event=listen)
    assert starts == [0, 4, 0]
    assert content(dst, layer) == b"0123456789"


def test_a_temporary_failure_after_progress_is_tried_again_with_growing_pauses() -> None:
    src, dst = FlakyStore(), MemoryStore()
    image = put_image(src, layers=[b"layer"])
    layer = layer_of(b"layer")
    src.plan(layer, *[breaks(LOST, 2)] * 3)
    events: list[Event] = []
    copy_graph(src, dst, image, to="1", on_event=events.append)
    retries = [event for event in events if isinstance(event, Retrying)]
    assert [retry.delay for retry in retries] == [0.001, 0.002, 0.004]
    assert {(retry.what, retry.why) for retry in retries} == {(str(layer.digest), "the connection was lost")}
    src.plan(layer, *[breaks(LOST, 2)] * 4)
    with pytest.raises(RegistryError, match="lost"):
        copy_graph(src, MemoryStore(), image, to="1")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(breaks(RegistryError("refused", temporary=True), 0), id="no_progress"),
        pytest.param(breaks(RegistryError("refused"), 3), id="not_temporary"),
        pytest.param(breaks(OciError("refused"), 3), id="no_registry"),
    ],
)
def test_other_failures_are_not_tried_again(fault: Callable[[bytes], Reader]) -> None:
    src = FlakyStore()
    image = put_image(src, layers=[b"layer"])
    src.plan(layer_of(b"layer"), fault)
    with pytest.raises(OciError, match="refused"):
        copy_graph(src, MemoryStore(), image, to="1")
    assert src.asked("fetch").count(str(Digest.of(b"layer"))) == 1


def test_who_waits_to_try_again_gives_up_when_another_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_RETRY_DELAY", 60.0)
    retrying = threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, Retrying):
            retrying.set()

    def fail(_: bytes) -> Reader:
        retrying.wait(60)
        raise Unsupported("no")

    src = FlakyStore()
    image = put_image(src, layers=[b"lost", b"bad"])
    src.plan(layer_of(b"lost"), breaks(LOST, 2))
    src.plan(layer_of(b"bad"), fail)
    before = time.perf_counter()
    with pytest.raises(Unsupported):
        copy_graph(src, MemoryStore(), image, to="1", jobs=2, on_event=listen)
    assert time.perf_counter() - before < 30
    assert src.asked("fetch").count(str(Digest.of(b"lost"))) == 1


def test_content_that_is_not_there_is_not_found_and_nothing_is_named() -> None:
    src, dst = MemoryStore(), RecordingStore()
    image = put_image(src, layers=[layer_of(b"absent"), b"there"])
    with pytest.raises(NotFound, match="not in memory"):
        copy_graph(src, dst, image, to="1")
    assert not dst.exists(image)
    with pytest.raises(NotFound):
        copy(src, dst, "no such tag")


def test_a_manifest_that_is_none_is_refused_before_anything_moves() -> None:
    src, dst = MemoryStore(), RecordingStore()
    image = put_image(src)
    broken = {"schemaVersion": 2, "layers": [], "manifests": [], "config": image.to_json()}
    raw = json.dumps(broken).encode()
    desc = put(src, "application/octet-stream", raw)
    index = put_index(src, [image, Descriptor(mediatypes.OCI_MANIFEST, desc.digest, desc.size)])
    with pytest.raises(InvalidContent, match="could be an image or an index"):
        copy_graph(src, dst, index, to="1")
    assert dst.calls == []


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"size": 8}, id="rc_12_two_sizes"),
        pytest.param({"mediaType": mediatypes.OCI_INDEX}, id="rc_09_two_kinds_of_manifest"),
    ],
)
def test_descriptors_that_contradict_each_other_are_refused(other: dict[str, object]) -> None:
    src, dst = MemoryStore(), RecordingStore()
    image = put_image(src)
    contradiction = {**image.to_json(), **other}
    index = put_json(
        src,
        mediatypes.OCI_INDEX,
        {"schemaVersion": 2, "manifests": [image.to_json(), contradiction]},
    )
    with pytest.raises(InvalidContent, match="is named as"):
        copy_graph(src, dst, index, to="1")
    assert dst.calls == []


def test_no_jobs_is_a_mistake_of_the_caller() -> None:
    src = MemoryStore()
    with pytest.raises(ValueError, match="at least one job"):
        copy_graph(src, MemoryStore(), put_image(src), to="1", jobs=0)


# Interruption


def copying_from_a_silent_peer(do: str) -> subprocess.Popen[bytes]:
    """A copy whose source says nothing more; its worker does as told before it waits for it."""
    script = f"""
import signal, sys, threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ocitool.memory import MemoryStore
from ocitool.transfer import copy_graph
from support.stores import put_image

class Silent(MemoryStore):
    @contextmanager
    def fetch(self, desc, /, *, offset=0):
        if not desc.is_manifest:
            {do}
            threading.Event().wait()
        with super().fetch(desc, offset=offset) as reader:
            yield reader

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs us in the background
src = Silent()
image = put_image(src)
try:
    copy_graph(src, MemoryStore(), image, to="1", jobs=1)
except KeyboardInterrupt:
    sys.exit(130)
"""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"}
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)


def test_an_interrupt_does_not_wait_for_a_silent_peer() -> None:
    with copying_from_a_silent_peer('print("waiting", flush=True)') as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"waiting\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()


def test_an_interrupt_that_does_not_wake_the_caller_is_seen_nevertheless() -> None:
    # As where it comes between the caller's last look and its wait: nothing but this wakes it for sure.
    itself = "import time; time.sleep(1); signal.pthread_kill(threading.get_ident(), signal.SIGINT)"
    with copying_from_a_silent_peer(itself) as process:
        try:
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()


def test_an_interrupt_of_the_caller_ends_the_copy_and_is_passed_on() -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Planned):
            raise KeyboardInterrupt

    src, dst = MemoryStore(), RecordingStore()
    fat(src)
    with pytest.raises(KeyboardInterrupt):
        copy(src, dst, "1", on_event=listen)
    assert dst.calls == []


def test_a_listener_hears_nothing_more_after_an_interrupt() -> None:
    waiting, release, over = threading.Event(), threading.Event(), threading.Event()

    def wait(content: bytes) -> Reader:
        waiting.set()
        release.wait(60)
        return io.BytesIO(content)

    class Watched(MemoryStore):
        def push(self, desc: Descriptor, stream: Reader, /) -> None:
            try:
                super().push(desc, stream)
            finally:
                if desc == late:
                    over.set()

    def listen(event: Event) -> None:
        heard.append(event)
        if isinstance(event, Advanced):
            waiting.wait(60)
            raise KeyboardInterrupt

    src, heard = FlakyStore(), list[Event]()
    late = put(src, "a/b", b"the largest of all" * 100)
    src.plan(late, wait)
    image = put_image(src, layers=[late, b"layer"])
    with pytest.raises(KeyboardInterrupt):
        copy_graph(src, Watched(), image, to="1", jobs=2, on_event=listen)
    before = list(heard)
    release.set()
    assert over.wait(60)
    assert heard == before


# The parts of a copy, for who needs only one of them


def test_a_survey_finds_what_a_copy_would_see_to_and_moves_nothing() -> None:
    src = RecordingStore()
    root = fat(src)
    signature = put_artifact(src, root)
    graph = survey(src, root)
    assert {*graph.leaves.values(), *graph.manifests.values()} == reachable(src, root)
    assert graph.root == root
    assert next(iter(graph.manifests.values())) == root
    assert graph.content == {desc.digest: content(src, desc) for desc in graph.manifests.values()}
    assert graph.roots() == [root]
    assert survey(src, root, referrers=True).roots() == [root, signature]
    arm = survey(src, root, platforms=Selection((Platform("linux", "arm64"),)))
    assert arm.root != root
    assert len(arm.leaves) == 3


def test_single_pieces_move_in_the_order_given() -> None:
    src, dst = MemoryStore(), RecordingStore()
    descs = [put(src, "a/b", bytes([n])) for n in range(20)]
    move(src, dst, descs, jobs=1)
    assert dst.asked("push") == [str(desc.digest) for desc in descs]
    carried = Descriptor("a/b", Digest.of(b"carried"), 7, data=b"carried")
    move(src, dst, [carried])
    assert content(dst, carried) == b"carried"


def test_a_list_that_breaks_off_ends_the_move() -> None:
    def endless() -> Iterator[Descriptor]:
        yield put(src, "a/b", b"first")
        raise LookupError("no more")

    src, dst = MemoryStore(), MemoryStore()
    with pytest.raises(LookupError, match="no more"):
        move(src, dst, endless())


@pytest.mark.parametrize("jobs", [1, 3])
def test_work_is_done_side_by_side_and_its_results_come_in_order(jobs: int) -> None:
    together = threading.Barrier(jobs, timeout=60)

    def work(n: int) -> int:
        together.wait()
        return n * n

    assert each(work, range(3 * jobs), jobs=jobs) == [n * n for n in range(3 * jobs)]
    assert each(work, [], jobs=jobs) == []


def test_the_first_failure_of_any_work_is_the_one_that_is_raised() -> None:
    done: list[int] = []

    def work(n: int) -> None:
        if n == 3:
            raise LookupError("three")
        if n > 3:
            time.sleep(0.2)
        done.append(n)

    with pytest.raises(LookupError, match="three"):
        each(work, range(1000), jobs=2)
    assert len(done) < 10


# Other abilities


def test_a_store_that_can_mount_is_asked_first_and_gets_the_source_itself() -> None:
    src = MemoryStore()
    root = fat(src)
    for platforms in (Selection(), Selection((Platform("linux", "amd64"),))):
        dst = MountingStore(src)
        events: list[Event] = []
        copy(src, dst, "1", platforms=platforms, on_event=events.append)
        leaves = {desc for desc in reachable(dst, dst.resolve("1")) if not desc.is_manifest}
        assert set(dst.asked("mount")) == digests(leaves)
        finished = [event for event in events if isinstance(event, Finished)]
        assert {event.descriptor for event in finished if event.how == "mounted"} == leaves
    stranger = MountingStore()
    copy(src, stranger, "1")
    assert set(stranger.asked("push")) == digests(reachable(src, root))


def test_an_interrupted_transfer_goes_on_where_it_stopped() -> None:
    src, dst = RecordingStore(), ResumingStore()
    image = put_image(src, layers=[b"0123456789"])
    layer = layer_of(b"0123456789")
    dst.partials[layer.digest] = b"0123"
    events: list[Event] = []
    copy_graph(src, dst, image, to="1", on_event=events.append)
    mine = [event for event in events if getattr(event, "descriptor", None) == layer]
    assert mine[0] == Started(layer, 4)
    assert sum(event.count for event in mine if isinstance(event, Advanced)) == 6
    assert content(dst, layer) == b"0123456789"


def test_a_partial_that_has_everything_only_needs_its_verification() -> None:
    src, dst = MemoryStore(), ResumingStore()
    image = put_image(src, layers=[b"0123456789"])
    layer = layer_of(b"0123456789")
    dst.partials[layer.digest] = b"0123456789"
    copy_graph(src, dst, image, to="1")
    assert content(dst, layer) == b"0123456789"


def test_a_blob_that_became_whole_in_the_meantime_is_left_alone() -> None:
    class Overtaken(ResumingStore):
        def exists(self, desc: Descriptor, /) -> bool:
            seen = super().exists(desc)
            if not seen and not desc.is_manifest:
                MemoryStore.push(self, desc, io.BytesIO(content(src, desc)))
            return seen

    src, dst = RecordingStore(), Overtaken()
    image = put_image(src)
    events: list[Event] = []
    copy_graph(src, dst, image, to="1", on_event=events.append)
    how = {event.descriptor: event.how for event in events if isinstance(event, Finished)}
    assert [how[desc] for desc in children(src, image)] == ["skipped"] * 3


# Selections


def test_a_sparse_copy_keeps_the_index_and_its_digest() -> None:
    src, dst = MemoryStore(), MemoryStore()
    root = fat(src)
    assert copy(src, dst, "1", platforms=Selection((Platform("linux", "arm64"),), sparse=True)) == root
    amd, arm = children(src, root)
    assert content(dst, root) == content(src, root)
    assert dst.exists(arm)
    assert not dst.exists(amd)
    assert not dst.exists(layer_of(b"amd"))
    copy(src, dst, "1")
    assert all(dst.exists(desc) for desc in reachable(src, root))


def test_a_part_of_an_index_is_a_new_index_with_a_digest_of_its_own(tmp_path: Path) -> None:
    src, dst = MemoryStore(), MemoryStore()
    root = fat(src)
    arm = children(src, root)[1]
    for ref, names in (("1", ["1"]), (str(root.digest), ["1"])):
        written = copy(src, dst, ref, platforms=Selection((Platform("linux", "arm64"),)))
        assert written != root
        assert written.data is None
        assert children(dst, written) == (arm,)
        assert not dst.exists(root)
        assert list(dst.tags()) == names
        assert dst.resolve(str(written.digest)) == written
    # A layout takes no digest for a name but the content's own.
    layout = LayoutStore(tmp_path / "layout")
    part = copy(src, layout, str(root.digest), platforms=Selection((Platform("linux", "arm64"),)))
    assert dst.exists(part)
    assert layout.entries() == [part]
    layout.close()


def test_what_a_selection_leaves_out_of_the_root_is_copied_where_it_is_kept_deeper() -> None:
    src, dst = MemoryStore(), MemoryStore()
    image = put_image(src, marked=True)
    other = put_image(src, platform="linux/s390x", marked=True)
    root = put_index(src, [put_index(src, [image, other]), other])
    src.tag(root, "1")
    written = copy(src, dst, "1", platforms=Selection((Platform("linux", "amd64"),), sparse=True))
    assert written == root
    nested = children(dst, root)[0]
    assert all(dst.exists(desc) for desc in reachable(src, nested))


# Referrers


def test_referrers_are_copied_with_what_they_refer_to_when_asked() -> None:
    src = MemoryStore()
    root = fat(src)
    signature = put_artifact(src, root, "signature")
    sbom = put_artifact(src, children(src, root)[0], "sbom")
    about = put_artifact(src, signature, "about the signature")
    plain, whole = MemoryStore(), RecordingStore()
    copy(src, plain, "1")
    copy(src, whole, "1", referrers=True)
    for artifact in (signature, sbom, about):
        assert not plain.exists(artifact)
        assert all(whole.exists(desc) for desc in reachable(src, artifact))
    assert list(whole.referrers(root)) == [signature]
    assert list(whole.referrers(signature)) == [about]
    assert list(whole.tags()) == ["1"]


def test_referrers_of_what_a_selection_keeps_are_copied_too() -> None:
    src, dst = MemoryStore(), MemoryStore()
    root = fat(src)
    amd, arm = children(src, root)
    kept, left = put_artifact(src, arm), put_artifact(src, amd)
    copy(src, dst, "1", platforms=Selection((Platform("linux", "arm64"),)), referrers=True)
    assert dst.exists(kept)
    assert not dst.exists(left)


def test_what_has_a_digest_in_its_tag_comes_along_and_before_the_name() -> None:
    """cosign's signatures name their image by nothing but their tag."""
    src = MemoryStore()
    root = fat(src)
    amd, arm = children(src, root)
    of_root, of_amd, of_arm = (f"sha256-{desc.digest.hex}.sig" for desc in (root, amd, arm))
    others = (f"sha256-{'0' * 64}.sig", f"sha256-{root.digest.hex}")  # another image's, a list of referrers
    for tag in (of_root, of_amd, of_arm, *others):
        src.tag(put_image(src, layers=[tag.encode()]), tag)
    plain, whole, part = MemoryStore(), RecordingStore(), MemoryStore()
    copy(src, plain, "1")
    copy(src, whole, "1", to="example.test/app:1", referrers=True)
    kept = Selection((Platform("linux", "arm64"),), sparse=True)
    copy(src, part, "1", platforms=kept, referrers=True)
    assert list(plain.tags()) == ["1"]
    named = [f"example.test/app:{tag}" for tag in sorted((of_root, of_amd, of_arm))]
    assert whole.asked("tag") == [*named, "example.test/app:1"]
    assert all(whole.exists(desc) for desc in reachable(src, src.resolve(of_amd)))
    assert list(part.tags()) == ["1", *sorted((of_root, of_arm))]


def test_a_source_whose_names_can_not_be_listed_says_what_they_were_wanted_for() -> None:
    class Shut(MemoryStore):
        def tags(self) -> list[str]:
            raise RegistryError("no lists")

    src, dst = Shut(), MemoryStore()
    fat(src)
    copy(src, dst, "1")
    with pytest.raises(RegistryError, match="no lists") as caught:
        copy(src, dst, "1", to="2", referrers=True)
    assert "signatures of 1 by their tags" in str(caught.value.__notes__)
    assert list(dst.tags()) == ["1"]


def test_a_source_that_knows_no_referrers_has_none() -> None:
    class Plain:
        def __init__(self, inner: MemoryStore) -> None:
            self.resolve = inner.resolve
            self.fetch = inner.fetch

    src, dst = MemoryStore(), MemoryStore()
    root = fat(src)
    put_artifact(src, root)
    assert copy(Plain(src), dst, "1", referrers=True) == root
    assert list(dst.referrers(root)) == []


# RC-22: graphs that someone made to hurt


@contextmanager
def within(seconds: float) -> Iterator[None]:
    before = time.process_time()
    yield
    assert time.process_time() - before < seconds


def test_rc_22_a_chain_deeper_than_the_limit_is_refused() -> None:
    src, dst = MemoryStore(), RecordingStore()
    nested = put_image(src)
    for _ in range(10_000):
        nested = put_index(src, [nested])
    with within(5), pytest.raises(UnsafeContent, match="nested deeper than 8 levels"):
        copy_graph(src, dst, nested, to="1")
    assert dst.calls == []


def test_rc_22_a_long_chain_that_its_root_names_flat_is_copied_without_recursion() -> None:
    src, dst = MemoryStore(), RecordingStore()
    chain = [put_image(src)]
    for _ in range(2000):
        chain.append(put_index(src, chain[-1:]))
    root = put_index(src, reversed(chain))
    with within(30):
        copy_graph(src, dst, root, to="1")
    pushed = dst.asked("push")
    assert pushed[-2001:] == [str(desc.digest) for desc in [*chain[1:], root]]


def test_rc_22_an_index_with_too_many_entries_is_refused() -> None:
    src = MemoryStore()
    entry = put_image(src).to_json()
    raw = json.dumps({"schemaVersion": 2, "manifests": [entry] * (limits.INDEX_ENTRIES + 1)}).encode()
    root = Descriptor.of(mediatypes.OCI_INDEX, raw)
    flaky = FlakyStore()
    flaky.push(layer_of(raw), io.BytesIO(raw))
    with within(5), pytest.raises(UnsafeContent, match="at most"):
        copy_graph(flaky, MemoryStore(), root, to="1")


def test_rc_22_one_child_named_ten_thousand_times_is_copied_once() -> None:
    src, dst = RecordingStore(), RecordingStore()
    root = put_index(src, [put_image(src)] * 10_000)
    src.calls.clear()
    with within(10):
        copy_graph(src, dst, root, to="1")
    assert len(dst.asked("push")) == 5
    assert len(src.asked("fetch")) == 5


def test_rc_22_indexes_that_name_each_next_one_many_times_are_read_once_each() -> None:
    src, dst = RecordingStore(), MemoryStore()
    nested = put_image(src)
    for _ in range(limits.INDEX_NESTING - 1):
        nested = put_index(src, [nested] * 1000)
    src.calls.clear()
    with within(10):
        copy_graph(src, dst, nested, to="1")
    assert len(src.asked("fetch")) == limits.INDEX_NESTING + 3


def test_rc_22_more_content_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    src, dst = MemoryStore(), RecordingStore()
    root = put_image(src, layers=[bytes([n]) for n in range(20)])
    monkeypatch.setattr(limits, "GRAPH_NODES", 20)
    with pytest.raises(UnsafeContent, match="more than 20 pieces"):
        copy_graph(src, dst, root, to="1")
    assert dst.calls == []


def test_rc_22_manifests_that_do_not_fit_in_memory_are_not_even_read() -> None:
    src, dst = RecordingStore(), RecordingStore()
    huge = [
        Descriptor(mediatypes.OCI_MANIFEST, Digest.of(bytes([n])), limits.MANIFEST_BYTES)
        for n in range(limits.GRAPH_BYTES // limits.MANIFEST_BYTES)
    ]
    root = put_index(src, huge)
    src.calls.clear()
    with pytest.raises(UnsafeContent, match="bytes together"):
        copy_graph(src, dst, root, to="1")
    assert src.asked("fetch") == [str(root.digest)]


def test_many_small_images_are_copied_in_good_time() -> None:
    src, dst = MemoryStore(), RecordingStore()
    images = [put_image(src, layers=[n.to_bytes(2, "big")]) for n in range(1000)]
    with within(20):
        root = copy_graph(src, dst, put_index(src, images), to="1")
    assert isinstance(parse_manifest(content(dst, root), root), Index)
    assert len(dst.asked("push")) == 2002


def test_copies_side_by_side_into_one_store_do_not_disturb_each_other() -> None:
    src, dst = MemoryStore(), MemoryStore()
    roots = [put_image(src, layers=[b"shared", bytes([n])]) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: copy_graph(src, dst, roots[name], to=str(name)), range(8)))
    assert list(dst.tags()) == [str(n) for n in range(8)]
