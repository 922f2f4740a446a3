"""Engines' options about how much a container may use, put onto a config.json."""

from __future__ import annotations

from typing import Any

import pytest

from ocitool.errors import InvalidReference
from ocitool.run import defaults, spec
from ocitool.run.limiting import size, ulimit
from ocitool.run.options import RunOptions, apply


def _apply(**options: Any) -> dict[str, Any]:
    return spec.check(apply(defaults.config(), RunOptions(**options)))


def test_limits() -> None:
    resources = _apply(memory="64m", cpus="1.5", pids_limit=9)["linux"]["resources"]
    assert resources["memory"] == {"limit": 64 << 20}
    swapping = _apply(memory="64m", counts_swap=True)["linux"]["resources"]["memory"]
    assert swapping == {"limit": 64 << 20, "swap": 128 << 20}
    assert "memory" not in _apply(memory="0", counts_swap=True)["linux"]["resources"]
    assert resources["cpu"] == {"quota": 150000, "period": 100000}
    assert resources["pids"] == {"limit": 9}
    assert all("pids" not in _apply(pids_limit=none)["linux"]["resources"] for none in (0, -1))
    for wrong in (
        {"cpus": "x"},
        {"cpus": "0.001"},
        {"cpus": "nan"},
        {"cpus": "inf"},
        {"memory": "lots"},
        {"memory": "-1"},
    ):
        with pytest.raises(InvalidReference):
            _apply(**wrong)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5), ("1k", 1024), ("2KB", 2048), ("3g", 3 << 30), ("4b", 4), ("64MiB", 64 << 20),
        ("1.5g", 3 << 29), (".5k", 512), ("1.k", 1024),
    ],
)  # fmt: skip
def test_sizes(text: str, number: int) -> None:
    assert size(text) == number


@pytest.mark.parametrize("text", ["", "m", ".", "1.2.3m", "5i", "5bb", "5mm", "-1", "1e3", "\uff15"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match="is not a size"):
        size(text)


def test_limits_of_memory() -> None:
    def memory(**options: str) -> dict[str, Any]:
        found: dict[str, Any] = _apply(counts_swap=True, **options)["linux"]["resources"]["memory"]
        return found

    assert memory(memory="64m", memory_swap="64m", memory_reservation="32m") == {
        "limit": 64 << 20,
        "swap": 64 << 20,
        "reservation": 32 << 20,
    }
    assert memory(memory="64m", memory_swap="-1")["swap"] == -1
    assert memory(memory="64m", memory_swap="0")["swap"] == 128 << 20
    assert memory(memory_reservation="32m") == {"reservation": 32 << 20}
    for wrong in (
        {"memory_swap": "1g"},
        {"memory": "64m", "memory_swap": "32m"},
        {"memory": "64m", "memory_reservation": "65m"},
    ):
        with pytest.raises(InvalidReference):
            _apply(**wrong)


def test_what_happens_where_memory_is_scarce() -> None:
    memory = _apply(memory_swappiness=0, oom_kill_disable=True)["linux"]["resources"]["memory"]
    assert memory == {"swappiness": 0, "disableOOMKiller": True}
    assert "memory" not in _apply(memory_swappiness=-1, oom_kill_disable=False)["linux"]["resources"]
    for wrong in (101, -2):
        with pytest.raises(InvalidReference, match="from 0 to 100"):
            _apply(memory_swappiness=wrong)


def test_time_of_real_time_programs() -> None:
    found = _apply(cpu_rt_period=1000000, cpu_rt_runtime=950000)["linux"]["resources"]["cpu"]
    assert found == {"realtimePeriod": 1000000, "realtimeRuntime": 950000}


def test_shares_of_processors() -> None:
    found = _apply(cpu_shares=512, cpu_period=50000, cpu_quota=25000, cpuset_cpus="0-1", cpuset_mems="0")
    assert found["linux"]["resources"]["cpu"] == {
        "shares": 512, "period": 50000, "quota": 25000, "cpus": "0-1", "mems": "0",
    }  # fmt: skip
    with pytest.raises(InvalidReference, match="leave out --cpu-quota"):
        _apply(cpus="1", cpu_quota=1000)


@pytest.mark.parametrize(
    ("text", "name", "soft", "hard"),
    [
        ("nofile=1024", "NOFILE", 1024, 1024),
        ("nofile=1024:2048", "NOFILE", 1024, 2048),
        ("core=0", "CORE", 0, 0),
        ("core=-1", "CORE", -1, -1),
        ("memlock=5:-1", "MEMLOCK", 5, -1),
    ],
)
def test_ulimits(text: str, name: str, soft: int, hard: int) -> None:
    assert ulimit(text) == {"type": f"RLIMIT_{name}", "soft": soft, "hard": hard}


@pytest.mark.parametrize(
    "text",
    [
        "", "nofile", "nofile=", "nofile=:1", "nofile=1:", "nofile=2:1", "nofile=-1:5", "nofile=-2",
        "NOFILE=1", "files=1", "nofile=1:2:3", "nofile=\uff11", "nofile=9223372036854775808",
    ],
)  # fmt: skip
def test_what_is_no_ulimit_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match="ulimit"):
        ulimit(text)


def test_of_two_limits_of_one_kind_the_later_one_holds() -> None:
    config = defaults.config()
    config["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1},
        {"type": "RLIMIT_CORE", "soft": 1, "hard": 1},
    ]
    found = apply(config, RunOptions(ulimits=("nofile=2", "nofile=3")))["process"]["rlimits"]
    assert {each["type"]: each["soft"] for each in found} == {"RLIMIT_NOFILE": 3, "RLIMIT_CORE": 1}


def test_the_size_of_shared_memory() -> None:
    (shm,) = [mount for mount in _apply(shm_size="1g")["mounts"] if mount["destination"] == "/dev/shm"]
    assert [option for option in shm["options"] if option.startswith("size=")] == [f"size={1 << 30}"]
    # The host's own has the size that the host has given it.
    (shm,) = [
        mount for mount in _apply(shm_size="1g", ipc="host")["mounts"] if mount["destination"] == "/dev/shm"
    ]
    assert not any(option.startswith("size=") for option in shm["options"])
    with pytest.raises(InvalidReference, match="no shared memory at all"):
        _apply(shm_size="0")


def test_who_is_ended_first_where_memory_runs_out() -> None:
    assert _apply(oom_score_adj=0)["process"]["oomScoreAdj"] == 0
    for wrong in (-1001, 1001):
        with pytest.raises(InvalidReference):
            _apply(oom_score_adj=wrong)
