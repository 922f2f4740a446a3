"""What a container finds in its /etc."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ocitool import hostfiles
from ocitool.errors import InvalidReference
from ocitool.hostfiles import Names


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "hosts": "127.0.0.1 localhost host\n",
        "resolv.conf": "# of the host\nnameserver 192.0.2.1\ndomain lan\nsearch lan\noptions rotate\n",
    }
    monkeypatch.setattr(hostfiles, "_of_the_host", files.__getitem__)


def _written(directory: Path, network: str, **names: Any) -> dict[str, str]:
    hostfiles.mounts(str(directory), [str(directory)], "box", network, Names(**names))
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_hosts_are_added_to_the_containers_own_name(tmp_path: Path) -> None:
    found = _written(
        tmp_path, "none", hosts=["db:192.0.2.9", "six=[2001:db8::1]", "seven:::1"], domain="example"
    )
    assert found["hosts"].splitlines()[2:] == [
        "127.0.1.1\tbox.example box",
        "192.0.2.9\tdb",
        "2001:db8::1\tsix",
        "::1\tseven",
    ]
    assert "resolv.conf" not in found


def test_hosts_are_added_to_those_of_the_host_where_its_network_is_shared(tmp_path: Path) -> None:
    assert _written(tmp_path, "host", hosts=["db:192.0.2.9"])["hosts"] == (
        "127.0.0.1 localhost host\n192.0.2.9\tdb\n"
    )


@pytest.mark.parametrize(
    "text", ["", "db", "db:", ":192.0.2.1", "db:host", "a b:192.0.2.1", "a\nb:192.0.2.1"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match="add-host"):
        Names(hosts=[text])


def test_a_gateway_to_the_host_is_refused_with_what_there_is_instead() -> None:
    with pytest.raises(InvalidReference, match="no bridge") as refused:
        Names(hosts=["docker:host-gateway"])
    assert "10.0.2.2" in refused.value.hint


def test_name_servers_take_the_place_of_the_hosts_and_leave_the_rest(tmp_path: Path) -> None:
    found = _written(tmp_path, "host", servers=["192.0.2.7", "::1"])["resolv.conf"]
    assert found.splitlines() == [
        "# of the host",
        "domain lan",
        "search lan",
        "options rotate",
        "nameserver 192.0.2.7",
        "nameserver ::1",
    ]


def test_what_is_searched_and_optional_takes_the_place_of_the_hosts(tmp_path: Path) -> None:
    found = _written(tmp_path, "pasta", search=["a.example", "b.example"], options=["ndots:2"])["resolv.conf"]
    assert found.splitlines() == [
        "# of the host",
        "nameserver 169.254.1.1",
        "search a.example b.example",
        "options ndots:2",
    ]


def test_a_dot_is_no_domain_to_search(tmp_path: Path) -> None:
    found = _written(tmp_path, "host", search=["."])["resolv.conf"]
    assert found.splitlines() == ["# of the host", "nameserver 192.0.2.1", "options rotate"]


def test_a_container_without_network_has_the_resolver_that_it_is_given(tmp_path: Path) -> None:
    assert "nameserver 192.0.2.7\n" in _written(tmp_path, "none", servers=["192.0.2.7"])["resolv.conf"]


@pytest.mark.parametrize("names", [{"servers": ["ns.example"]}, {"search": ["a b"]}, {"options": [""]}])
def test_what_is_no_resolver_is_refused(names: dict[str, Any]) -> None:
    with pytest.raises(InvalidReference):
        Names(**names)
