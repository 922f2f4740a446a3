"""config.json: what is accepted, and what is an error (config.md, config-linux.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ocitool.errors import InvalidContent, Unsupported
from ocitool.run import defaults, features, mountoptions, spec


def _config(change: Callable[[dict[str, Any]], Any] = lambda _: None) -> dict[str, Any]:
    found = defaults.config()
    change(found)
    return found


def _put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        here: Any = config
        for name in parents:
            here = here.setdefault(name, {}) if isinstance(here, dict) else here[int(name)]
        here[last] = value

    return change


def test_the_default_configuration_is_valid() -> None:
    assert spec.check(_config())
    assert spec.check(defaults.config(rootless=True))


MAPPINGS = [{"containerID": 0, "hostID": 0, "size": 1}]


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.2.1+build", "1.99.0", "1.3.0"])
def test_every_version_1_is_accepted(version: str) -> None:
    spec.check_version(version)


@pytest.mark.parametrize(
    ("version", "error"),
    [
        ("2.0.0", Unsupported),
        ("0.9.0", Unsupported),
        ("1", InvalidContent),
        ("1.x.0", InvalidContent),
        ("", InvalidContent),
        ("1.0.0.0", InvalidContent),
        ("\uff11.0.0", InvalidContent),
    ],
)
def test_other_versions_are_not(version: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        spec.check_version(version)


@pytest.mark.parametrize(
    "path",
    ["x", "process.x", "linux.x", "linux.seccomp.x", "process.user.x", "annotations.x", "windows", "vm"],
)
def test_unknown_properties_and_annotations_are_ignored(path: str) -> None:
    value = "text" if path.startswith("annotations") else {"anything": [1]}
    spec.check(_config(_put(path, value)))


def test_null_is_as_good_as_absent() -> None:
    for path in (
        "hooks",
        "annotations",
        "linux.resources.memory",
        "linux.devices",
        "process.rlimits",
        "mounts",
    ):
        spec.check(_config(_put(path, None)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ociVersion", 1),
        ("root", "rootfs"),
        ("root.path", ""),
        ("root.readonly", "yes"),
        ("process.cwd", "relative"),
        ("process.cwd", ""),
        ("process.args", []),
        ("process.args", "sh"),
        ("process.args", ["a", None]),
        ("process.env", [1]),
        ("process.env", ["A=\0"]),
        ("process.user.uid", -1),
        ("process.user.uid", 1 << 32),
        ("process.user.uid", True),
        ("process.user.umask", 0o1777),
        ("process.user.additionalGids", ["0"]),
        ("process.rlimits", [{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]),
        ("process.rlimits", [{"type": "RLIMIT_CORE", "soft": 1}]),
        ("process.rlimits", [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}] * 2),
        ("process.oomScoreAdj", 1001),
        ("process.scheduler", {"policy": "SCHED_NONSENSE"}),
        ("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8}),
        ("mounts", [{"source": "x"}]),
        ("mounts", [{"destination": ""}]),
        ("mounts", {}),
        (
            "mounts",
            [
                {
                    "destination": "/x",
                    "options": ["bind"],
                    "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
                }
            ],
        ),
        ("mounts", [{"destination": "/x", "source": "/y", "options": ["bind", "idmap"]}]),
        ("hooks", {"prestart": [{"path": "relative"}]}),
        ("hooks", {"prestart": [{"path": "/x", "timeout": 0}]}),
        ("hooks", {"poststop": [{"path": "/x", "args": [""]}]}),
        ("hooks", {"poststop": [{"path": "/x", "env": ["A=1", "=2"]}]}),
        ("hooks", {"poststop": [{"path": "/x", "env": [""]}]}),
        ("hooks", {"poststop": [{"path": "/x", "args": ["\ud800"]}]}),
        ("hostname", "\ud800"),
        ("hooks", {"poststop": [{"args": ["x"]}]}),
        ("linux.namespaces", [{"type": "nonsense"}]),
        ("linux.namespaces", [{}]),
        ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}]),
        ("linux.devices", [{"type": "x", "path": "/dev/x"}]),
        ("linux.devices", [{"type": "c", "path": "/dev/x"}]),
        ("linux.netDevices", {"eth0": {"name": "a/b"}}),
        ("linux.netDevices", {"eth0": {"name": "sixteen-letters-"}}),
        ("linux.netDevices", {"eth0": {"name": "same"}, "eth1": {"name": "same"}}),
        ("linux.netDevices", {"..": {}}),
        ("linux.netDevices", {"eth0": {"name": 1}}),
        ("linux.resources.pids", {"limit": "many"}),
        ("linux.resources.memory", {"swappiness": 201}),
        ("linux.timeOffsets", {"monotonic": {"secs": 1}}),
        ("linux.rootfsPropagation", "odd"),
        ("linux.personality", {"domain": "BSD"}),
        ("linux.seccomp", {"syscalls": []}),
        ("linux.sysctl", {"kernel.hostname": "x"}),
        ("linux.sysctl", {"vm.swappiness": "1"}),
        ("linux.sysctl", {"net/../kernel/core_pattern": "x"}),
        ("linux.sysctl", {"kernel.core_pattern": "|/x"}),
        ("annotations", {"x": 1}),
        ("annotations", {"": "x"}),
        ("linux.maskedPaths", ["relative"]),
        ("linux.readonlyPaths", [""]),
    ],
)
def test_invalid_values_are_errors(path: str, value: Any) -> None:
    with pytest.raises(InvalidContent):
        spec.check(_config(_put(path, value)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ociVersion", "2.0.0"),
        ("linux.intelRdt", {"closID": "x"}),
        ("linux.namespaces", [{"type": "pid"}, {"type": "user"}]),
        (
            "mounts",
            [{"destination": "/x", "type": "tmpfs", "uidMappings": MAPPINGS, "gidMappings": MAPPINGS}],
        ),
        ("linux.personality", {"domain": "LINUX", "flags": ["x"]}),
    ],
)
def test_what_is_not_there_is_refused_by_its_name(path: str, value: Any) -> None:
    config = _config(_put(path, value))
    config.pop("hostname")
    with pytest.raises(Unsupported):
        spec.check(config)


@pytest.mark.parametrize(
    ("kinds", "path", "value", "words"),
    [
        ("mount", "hostname", "x", "hostname is given without a uts namespace"),
        ("mount", "domainname", "x", "domainname is given without a uts namespace"),
        ("mount", "linux.netDevices", {"eth0": {}}, "needs a network namespace"),
        ("mount", "linux.timeOffsets", {"monotonic": {"secs": 1}}, "without a time namespace"),
        ("mount time", "linux.timeOffsets", {"realtime": {"secs": 1}}, "not a clock that can be moved"),
        ("mount", "linux.uidMappings", MAPPINGS, "without a user namespace"),
        ("mount user", "linux.uidMappings", MAPPINGS, "are missing for the new user namespace"),
    ],
)
def test_a_namespace_that_is_not_the_container_s_own_is_not_changed(
    kinds: str, path: str, value: Any, words: str
) -> None:
    config = _config(_put("linux.namespaces", [{"type": kind} for kind in kinds.split()]))
    config.pop("hostname")
    _put(path, value)(config)
    with pytest.raises(InvalidContent, match=words):
        spec.check(config)


@pytest.mark.parametrize(
    "key",
    [
        "net.ipv4.ip_forward",
        "net.ipv4.conf.eth0/1.forwarding",
        "kernel.shmmax",
        "fs.mqueue.msg_max",
        "kernel.domainname",
    ],
)
def test_a_sysctl_of_a_namespace_of_the_container_is_allowed(key: str) -> None:
    spec.check(_config(_put("linux.sysctl", {key: "1"})))
    without = _config(_put("linux.sysctl", {key: "1"}))
    without.pop("hostname")
    without["linux"]["namespaces"] = [{"type": "mount"}]
    with pytest.raises(InvalidContent):
        spec.check(without)


def test_every_mount_option_of_the_specification_is_known() -> None:
    required = """
        async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev
        nodiratime noexec noiversion nolazytime norelatime nostrictatime nosuid private rbind
        relatime remount ro rprivate rshared rslave runbindable rw shared silent slave strictatime
        suid sync unbindable mand nomand nosymfollow symfollow tmpcopyup idmap ridmap ratime rdev
        rdiratime rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid
        rnosymfollow rrelatime rro rrw rstrictatime rsuid rsymfollow
    """
    assert set(required.split()) <= set(mountoptions.names())


def test_the_later_of_two_options_wins() -> None:
    assert mountoptions.Options(["ro", "rw"]).set_ == 0
    assert mountoptions.Options(["rw", "ro"]).set_ == 1
    assert mountoptions.Options(["noatime", "strictatime"]).set_ == 0x20


def test_unknown_options_are_the_file_systems_own() -> None:
    options = mountoptions.Options(["size=1m", "ro", "sync", "odd", "rslave", "rro"])
    assert options.file_system == ["size=1m", "sync", "odd"]
    assert options.propagation == [0x80000 | 0x4000]
    assert (options.set_, options.set_below) == (1, 1)


def test_features_names_what_the_tables_hold() -> None:
    found = features.document()
    assert {"ociVersionMin", "ociVersionMax"} <= set(found)
    assert found["hooks"] == list(spec.HOOKS)
    assert set(found["linux"]["namespaces"]) == {
        "cgroup",
        "ipc",
        "mount",
        "network",
        "pid",
        "time",
        "user",
        "uts",
    }
    assert len(found["linux"]["capabilities"]) == 41
