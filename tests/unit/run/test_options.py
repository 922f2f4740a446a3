"""Engines' options, put onto a config.json."""

from __future__ import annotations

from typing import Any

import pytest

from ocitool.errors import InvalidReference, Unsupported
from ocitool.run import defaults, spec
from ocitool.run.options import RunOptions, apply, size


def _apply(**options: Any) -> dict[str, Any]:
    return spec.check(apply(defaults.config(), RunOptions(**options)))


def test_what_was_given_is_not_changed() -> None:
    before = defaults.config()
    apply(before, RunOptions(args=("x",), env=("A=b",), cap_add=("ALL",), network="host", read_only=True))
    assert before == defaults.config()


@pytest.mark.parametrize(
    ("options", "args"),
    [
        ({"args": ("ls", "-l")}, ["ls", "-l"]),
        ({"args": ("-l",), "image_entrypoint": ("ls",), "image_cmd": ("-a",)}, ["ls", "-l"]),
        ({"args": (), "image_entrypoint": ("ls",), "image_cmd": ("-a",)}, ["ls", "-a"]),
        ({"entrypoint": "sh", "args": ("-c", "x"), "image_entrypoint": ("ls",)}, ["sh", "-c", "x"]),
        ({"entrypoint": "sh", "image_cmd": ("dropped",)}, ["sh"]),
        ({"entrypoint": "", "args": ("ls",), "image_entrypoint": ("sh",)}, ["ls"]),
        ({}, ["sh"]),
    ],
)
def test_entry_point_and_command(options: dict[str, Any], args: list[str]) -> None:
    assert _apply(**options)["process"]["args"] == args


def test_no_command_at_all_is_an_error() -> None:
    with pytest.raises(InvalidReference, match="no command"):
        _apply(entrypoint="")


def test_environment() -> None:
    config = _apply(env=("A=1", "HOSTS", "TERM", "PATH=/x"), host_env={"HOSTS": "v"}, terminal=True)
    assert config["process"]["env"] == ["PATH=/x", "A=1", "HOSTS=v", "TERM=xterm"]
    with pytest.raises(InvalidReference):
        _apply(env=("=x",))


@pytest.mark.parametrize(
    ("text", "user"), [("0", (0, 0)), ("1000:50", (1000, 50)), ("2147483647", (2147483647, 0))]
)
def test_users(text: str, user: tuple[int, int]) -> None:
    found = _apply(user=text)["process"]["user"]
    assert (found["uid"], found["gid"]) == user


@pytest.mark.parametrize(
    "text", ["4294967296", "2147483648", "-1", "1000:", ":5", " 0", "0x0", "\uff11", "root", "", "1:2:3"]
)
def test_rn_12_what_is_no_user_is_never_root_by_accident(text: str) -> None:
    with pytest.raises(InvalidReference):
        _apply(user=text)


def test_volumes_and_tmpfs() -> None:
    mounts = _apply(volumes=("/a:/b", "/c:/d:ro,z", "/e:/dev/shm:shared"), tmpfs=("/t:size=1m",))["mounts"]
    assert [mount["destination"] for mount in mounts].count("/dev/shm") == 1
    by_destination = {mount["destination"]: mount for mount in mounts}
    assert by_destination["/b"]["options"] == ["rbind", "rprivate"]
    assert by_destination["/d"]["options"] == ["rbind", "ro", "rprivate"]
    assert by_destination["/dev/shm"]["options"] == ["rbind", "shared"]
    assert by_destination["/t"]["options"] == ["nosuid", "nodev", "noexec", "size=1m"]


def test_a_mount_comes_after_the_one_that_it_lies_below_whatever_their_order() -> None:
    config = _apply(volumes=("/a:/x/y/z", "/b:/x/y/"), tmpfs=("/x",))
    assert [mount["destination"] for mount in config["mounts"]][-3:] == ["/x", "/x/y", "/x/y/z"]


@pytest.mark.parametrize(
    "options",
    [{"volumes": ("/a:/x", "/b:/x/")}, {"volumes": ("/a:/x",), "mounts": ("type=tmpfs,target=/x/.",)}],
)
def test_two_mounts_on_one_place_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidReference, match="more than one mount is asked for on /x"):
        _apply(**options)


@pytest.mark.parametrize("text", ["/a:b", "/a:/b:odd", "/a:/b:ro:x"])
def test_volumes_that_are_wrong(text: str) -> None:
    with pytest.raises(InvalidReference):
        _apply(volumes=(text,))


def test_a_volume_without_a_source_takes_the_place_of_the_default_mount() -> None:
    (mount,) = [
        mount for mount in _apply(volumes=("/dev/shm/",))["mounts"] if mount["destination"] == "/dev/shm"
    ]
    assert (mount["type"], "tmpcopyup" in mount["options"], "ro" in mount["options"]) == (
        "tmpfs",
        True,
        False,
    )


def test_volumes_that_are_not_supported() -> None:
    for text in ("named:/a", "/a:/b:U"):
        with pytest.raises(Unsupported):
            _apply(volumes=(text,))


def test_rn_10_capabilities_are_never_inheritable() -> None:
    for options in (
        {"cap_add": ("sys_admin",)},
        {"cap_add": ("ALL",)},
        {"privileged": True},
        {"cap_drop": ("all",)},
    ):
        assert set(_apply(**options)["process"]["capabilities"]) == {"bounding", "effective", "permitted"}


@pytest.mark.parametrize(
    ("add", "drop", "names"),
    [
        (("NET_ADMIN",), ("ALL",), {"CAP_NET_ADMIN"}),
        (("CAP_NET_ADMIN", "KILL"), ("ALL", "kill"), {"CAP_NET_ADMIN"}),
        ((), ("ALL",), set()),
    ],
)
def test_capabilities(add: tuple[str, ...], drop: tuple[str, ...], names: set[str]) -> None:
    found = _apply(cap_add=add, cap_drop=drop)["process"]["capabilities"]
    assert set(found["bounding"]) == set(found["effective"]) == set(found["permitted"]) == names


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


def test_networks() -> None:
    assert {"type": "network"} not in _apply(network="host")["linux"]["namespaces"]
    assert _apply(network="none")["linux"]["namespaces"].count({"type": "network"}) == 1
    assert _apply(network="slirp4netns")["linux"]["namespaces"].count({"type": "network"}) == 1
    with pytest.raises(InvalidReference, match="is no network"):
        _apply(network="bridge")


def test_security_options() -> None:
    config = _apply(
        security_opt=(
            "no-new-privileges=false",
            "seccomp=unconfined",
            "apparmor=x",
            "mask=/etc",
            "unmask=/proc/keys",
        )
    )
    assert config["process"]["noNewPrivileges"] is False
    assert config["process"]["apparmorProfile"] == "x"
    assert "seccomp" not in config["linux"]
    assert "/etc" in config["linux"]["maskedPaths"]
    assert "/proc/keys" not in config["linux"]["maskedPaths"]
    for everything in ("unmask=ALL", "systempaths=unconfined"):
        linux = _apply(security_opt=(everything,))["linux"]
        assert linux["maskedPaths"] == linux["readonlyPaths"] == []
    assert _apply(security_opt=("no-new-privileges",))["process"]["noNewPrivileges"] is True
    assert _apply(security_opt=("seccomp=builtin",))["linux"]["seccomp"] == defaults.seccomp_profile()
    with pytest.raises(Unsupported):
        _apply(security_opt=("odd=1",))


def test_rn_15_a_container_gets_the_default_filter_unless_it_is_privileged() -> None:
    bare = defaults.config()
    del bare["linux"]["seccomp"]
    assert apply(bare, RunOptions())["linux"]["seccomp"] == defaults.seccomp_profile()
    assert "seccomp" not in apply(bare, RunOptions(privileged=True))["linux"]
    assert "seccomp" not in _apply(privileged=True)["linux"]
    assert "seccomp" not in apply(bare, RunOptions(security_opt=("seccomp=unconfined",)))["linux"]


def test_the_default_filter_goes_with_the_capabilities_and_another_one_stays() -> None:
    rule = _apply(cap_add=("SYS_ADMIN",))["linux"]["seccomp"]["syscalls"][0]
    assert {"mount", "unshare"} <= set(rule["names"])
    assert "chroot" not in _apply(cap_drop=("ALL",))["linux"]["seccomp"]["syscalls"][0]["names"]
    config = defaults.config()
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    for options in (RunOptions(cap_add=("SYS_ADMIN",)), RunOptions(privileged=True)):
        assert apply(config, options)["linux"]["seccomp"] == {"defaultAction": "SCMP_ACT_ALLOW"}


def test_an_ordinary_user_is_root_inside() -> None:
    linux = _apply(single_user=(1000, 100))["linux"]
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": 100, "size": 1}]
    assert {"type": "user"} in linux["namespaces"]


def test_the_rest() -> None:
    config = _apply(
        cwd="/w",
        hostname="h",
        read_only=True,
        console_size=(2, 3),
        terminal=True,
        annotations={"a": "b"},
        additional_gids=(5,),
    )
    assert (config["process"]["cwd"], config["hostname"], config["root"]["readonly"]) == ("/w", "h", True)
    assert config["process"]["consoleSize"] == {"height": 2, "width": 3}
    assert config["annotations"] == {"a": "b"}
    assert config["process"]["user"]["additionalGids"] == [5]
    with pytest.raises(InvalidReference):
        _apply(cwd="relative")
