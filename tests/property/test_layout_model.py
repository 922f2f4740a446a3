"""A layout behaves as a dictionary of names, whatever is done to it and in whichever order."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.layout_content import put_artifact

from ocitool.errors import NotFound
from ocitool.layout import LayoutStore
from ocitool.layout.check import check
from ocitool.layout.gc import collect
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.transfer import copy

NAMES = st.sampled_from(["a", "b", "12", "docker.io/library/debian:12", "127.0.0.1:5000/x:latest"])
TEXTS = st.sampled_from(["one", "two", "three"])


class Layout(RuleBasedStateMachine):
    """Names and roots in a layout beside the same in Python's own types."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.store = LayoutStore(Path(self.directory) / "layout")
        self.names: dict[str, Descriptor] = {}
        self.unnamed: set[Descriptor] = set()
        put_artifact(self.store, "never named")

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)

    @rule(text=TEXTS, name=NAMES)
    def pull(self, text: str, name: str) -> None:
        source = MemoryStore()
        source.tag(put_artifact(source, text), name)
        self.names[name] = copy(source, self.store, name)

    @rule(text=TEXTS)
    def pull_by_digest(self, text: str) -> None:
        source = MemoryStore()
        desc = put_artifact(source, text)
        copy(source, self.store, str(desc.digest))
        self.unnamed.add(desc)

    @precondition(lambda self: self.names)
    @rule(data=st.data(), name=NAMES)
    def rename(self, data: st.DataObject, name: str) -> None:
        old = data.draw(st.sampled_from(sorted(self.names)))
        self.store.tag(self.store.resolve(old), name)
        self.names[name] = self.names[old]

    @rule(name=NAMES)
    def untag(self, name: str) -> None:
        try:
            self.store.untag(name)
        except NotFound:
            assert name not in self.names
        self.names.pop(name, None)

    @rule(text=TEXTS)
    def delete(self, text: str) -> None:
        desc = put_artifact(MemoryStore(), text)
        there = self.store.exists(desc)
        try:
            self.store.delete(desc)
        except NotFound:
            assert not there
        self.names = {name: named for name, named in self.names.items() if named != desc}
        self.unnamed.discard(desc)

    @rule()
    def collect(self) -> None:
        self.store.close()
        collect(LayoutStore(self.store.path))
        self.store = LayoutStore(self.store.path)
        needed = {*self.names.values(), *self.unnamed}
        parts = {part for desc in needed for part in (desc.digest, *_parts(desc))}
        assert {digest for digest, _ in self.store.blobs} == parts

    @invariant()
    def names_are_as_expected(self) -> None:
        assert self.store.tags() == sorted(self.names)
        assert {name: self.store.resolve(name) for name in self.names} == self.names

    @invariant()
    def roots_are_as_expected(self) -> None:
        roots = {entry for entry in self.store.entries() if not entry.annotations}
        assert roots == self.unnamed

    @invariant()
    def all_is_whole(self) -> None:
        assert check(self.store) == []
        for desc in {*self.names.values(), *self.unnamed}:
            copy(self.store, MemoryStore(), str(desc.digest))


def _parts(desc: Descriptor) -> list[object]:
    for text in ("one", "two", "three"):
        source = MemoryStore()
        if put_artifact(source, text) == desc:
            return [child.digest for child in source._descriptors.values()]
    raise AssertionError


TestLayout = Layout.TestCase
TestLayout.settings = settings(max_examples=15, stateful_step_count=15)
