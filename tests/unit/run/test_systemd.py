"""Scopes of systemd: names and properties; and D-Bus's way of writing values."""

from __future__ import annotations

from typing import Any

import pytest

from ocitool.errors import InvalidContent
from ocitool.run import cgroup_v1, cgroup_v2, systemd
from ocitool.run.dbus import Reader, Variant, Writer, types_of


def test_a_path_names_slice_and_scope() -> None:
    assert systemd.names("machine.slice:libpod:abc", "id", user=False) == (
        "machine.slice",
        "libpod-abc.scope",
    )
    assert systemd.names("a.slice::abc", "id", user=False) == ("a.slice", "abc.scope")
    assert systemd.names(":p:abc", "id", user=True) == ("user.slice", "p-abc.scope")
    assert systemd.names(None, "id", user=False) == ("system.slice", "ocitool-id.scope")


@pytest.mark.parametrize(
    "path", ["/a", "a.slice:b", "a:b:c", "a.slice:b:", "a.slice:b/c:d", "a.slice:..:c", "a.slice:b:c.slice"]
)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(InvalidContent):
        systemd.names(path, "id", user=False)


RESOURCES = {
    "memory": {"limit": 1 << 30, "reservation": 1 << 20, "swap": 3 << 30},
    "cpu": {"shares": 512, "quota": 33333, "period": 100000, "cpus": "0-2,5", "mems": "0"},
    "pids": {"limit": -1},
}


def test_limits_become_properties_of_the_unit() -> None:
    found = {name: value.value for name, value in systemd.properties(cgroup_v2.settings(RESOURCES))}
    assert found == {
        "MemoryMax": 1 << 30,
        "MemoryLow": 1 << 20,
        "MemorySwapMax": 2 << 30,
        "CPUWeight": cgroup_v2.weight_of_shares(512),
        "CPUQuotaPerSecUSec": 340_000,  # rounded up to 10 ms, as systemd does
        "CPUQuotaPeriodUSec": 100_000,
        "TasksMax": (1 << 64) - 1,
        "AllowedCPUs": [0b100111],
        "AllowedMemoryNodes": [1],
    }
    files = [(name, value) for _, name, value in cgroup_v1.settings(RESOURCES, has_swap=False)]
    found = {name: value.value for name, value in systemd.properties(files)}
    assert found["MemoryLimit"] == 1 << 30
    assert found["CPUShares"] == 512
    assert found["CPUQuotaPerSecUSec"] == 340_000


def test_an_unlimited_quota_is_no_number() -> None:
    (found, _) = systemd.properties([("cpu.max", "max 100000")])
    assert found[1].value == (1 << 64) - 1


def test_values_are_aligned_as_the_specification_has_it() -> None:
    writer = Writer()
    writer.put("y", 1)
    writer.put("a(sv)", [["key", Variant("t", 5)]])
    # A byte and padding; the array's length from its first element on; string, signature "t", padding, 5.
    assert bytes(writer.data) == (
        b"\1\0\0\0" + b"\x18\0\0\0" + b"\3\0\0\0key\0" + b"\1t\0" + bytes(5) + b"\5" + bytes(7)
    )


def test_what_is_written_is_read_back() -> None:
    values: list[tuple[str, list[Any]]] = [
        ("ssa(sv)a(sa(sv))", ["a", "b", [["k", Variant("au", [1, 2])]], [["x", []]]]),
        ("bnqiuxt", [1, -2, 3, -4, 5, -6, 7]),
        ("aayog", [[[1, 2], []], "/o", "a(ss)"]),
    ]
    for signature, items in values:
        writer = Writer()
        for kind, item in zip(types_of(signature), items, strict=True):
            writer.put(kind, item)
        reader = Reader(bytes(writer.data))
        read = [reader.get(kind) for kind in types_of(signature)]
        assert read == [_plain(item) for item in items]


def _plain(value: Any) -> Any:
    if isinstance(value, Variant):
        return value.value
    return [_plain(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_message_that_ends_early_is_noticed(cut: int) -> None:
    writer = Writer()
    writer.put("a(sv)", [["key", Variant("s", "a value of some length")]])
    with pytest.raises((IndexError, KeyError)):
        Reader(bytes(writer.data[:-cut])).get("a(sv)")
