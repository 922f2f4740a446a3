"""Engines' options, put onto a config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ocitool.errors import InvalidContent, InvalidReference, Unsupported
from ocitool.run import defaults, spec
from ocitool.run.options import RunOptions, apply


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


def test_a_volume_of_the_containers_own_hides_nothing_that_is_mounted_in_it() -> None:
    config = defaults.config()
    config["mounts"] += [{"destination": "/etc/hosts", "type": "bind", "source": "/h", "options": ["bind"]}]
    for options, last in (
        (RunOptions(volumes=("/etc",)), ["/etc", "/etc/hosts"]),
        (RunOptions(volumes=("/a:/etc",)), ["/etc/hosts", "/etc"]),
        (RunOptions(volumes=("/etc", "/a:/etc/hosts/x")), ["/etc", "/etc/hosts", "/etc/hosts/x"]),
    ):
        found = [mount["destination"] for mount in apply(config, options)["mounts"]]
        assert found[-len(last) :] == last


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


def test_the_rest() -> None:
    config = _apply(
        cwd="/w",
        hostname="h",
        read_only=True,
        console_size=(2, 3),
        terminal=True,
        labels=("a=b", "c"),
        additional_gids=(5,),
    )
    assert (config["process"]["cwd"], config["hostname"], config["root"]["readonly"]) == ("/w", "h", True)
    assert config["process"]["consoleSize"] == {"height": 2, "width": 3}
    assert config["annotations"] == {"a": "b", "c": ""}
    assert config["process"]["user"]["additionalGids"] == [5]
    with pytest.raises(InvalidReference):
        _apply(cwd="relative")
    for nameless in ({"labels": ("=b",)}, {"sysctls": ("=1",)}):
        with pytest.raises(InvalidReference, match="has no name before its value"):
            _apply(**nameless)


def test_groups_are_added_to_those_of_the_image() -> None:
    config = defaults.config()
    config["process"]["user"]["additionalGids"] = [4, 5]
    assert apply(config, RunOptions(additional_gids=(5, 6)))["process"]["user"]["additionalGids"] == [4, 5, 6]


def test_setuid_programs_gain_privileges_only_where_that_is_asked_for() -> None:
    assert _apply()["process"]["noNewPrivileges"] is True
    assert _apply(as_engines=True)["process"]["noNewPrivileges"] is False
    options = {"as_engines": True, "security_opt": ("no-new-privileges",)}
    assert _apply(**options)["process"]["noNewPrivileges"] is True


def test_the_users_own_group_is_a_supplementary_one_where_there_can_be_any() -> None:
    def groups(config: dict[str, Any], **options: Any) -> list[int] | None:
        user = apply(config, RunOptions(as_engines=True, **options))["process"]["user"]
        found: list[int] | None = user.get("additionalGids")
        return found

    assert groups(defaults.config(), user="5:6") == [6]
    assert groups(defaults.config(), user="5:6", additional_gids=(7, 6)) == [6, 7]
    assert groups(defaults.config()) is None
    assert groups(defaults.config(rootless=True), user="0:0") is None
    assert groups(defaults.config(rootless=True), user="5:6") is None


def test_a_sysctl_has_to_be_of_a_namespace_of_the_container() -> None:
    assert _apply(sysctls=("net.core.somaxconn=9", "kernel.msgmax=1=2"))["linux"]["sysctl"] == {
        "net.core.somaxconn": "9",
        "kernel.msgmax": "1=2",
    }
    with pytest.raises(InvalidContent, match="needs a network namespace"):
        _apply(sysctls=("net.core.somaxconn=9",), network="host")


def test_names() -> None:
    config = _apply(hostname="h", domainname="d.example")
    assert (config["hostname"], config["domainname"]) == ("h", "d.example")
    for options in (
        {"hostname": "h", "uts": "host"},
        {"domainname": "d", "uts": "host"},
        {"domainname": "/"},
    ):
        with pytest.raises(InvalidReference):
            _apply(**options)


@pytest.mark.parametrize("kind", ["cgroup", "ipc", "pid", "uts"])
def test_a_namespace_can_be_the_hosts(kind: str) -> None:
    option = {"cgroup": "cgroupns"}.get(kind, kind)
    assert {"type": kind} in _apply(**{option: "private"})["linux"]["namespaces"]
    config = _apply(**{option: "host"})
    assert {"type": kind} not in config["linux"]["namespaces"]
    assert ("hostname" in config) is (kind != "uts")


def test_shared_memory_can_be_left_out() -> None:
    before = {mount["destination"] for mount in defaults.config()["mounts"]}
    config = _apply(ipc="none")
    assert {mount["destination"] for mount in config["mounts"]} == before - {"/dev/shm"}
    assert {"type": "ipc"} in config["linux"]["namespaces"]
    assert _apply(ipc="none", tmpfs=("/dev/shm",))["mounts"][-1]["destination"] == "/dev/shm"
    assert _apply(ipc="shareable") == _apply(ipc="private") == _apply()


@pytest.mark.parametrize(("text", "mask"), [("0", 0), ("77", 0o77), ("0022", 0o22), ("777", 0o777)])
def test_a_umask_is_in_octal_digits(text: str, mask: int) -> None:
    assert _apply(umask=text, user="5:6")["process"]["user"] == {"uid": 5, "gid": 6, "umask": mask}


@pytest.mark.parametrize("text", ["", "8", "0o22", "00022", "1000", "-1", "\uff11"])
def test_what_is_no_umask_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match="octal digits"):
        _apply(umask=text)


def test_variables_of_the_image_are_left_out_before_others_are_set() -> None:
    config = defaults.config()
    config["process"]["env"] = ["A=1", "B=2"]

    def env(**options: Any) -> list[str]:
        host = {"B": "host", "C": "host"}
        found: list[str] = apply(config, RunOptions(host_env=host, **options))["process"]["env"]
        return found

    assert env(unsetenv=("A", "X")) == ["B=2"]
    assert env(unsetenv=("A",), env=("A=3",)) == ["B=2", "A=3"]
    assert env(unsetenv_all=True, env=("C",)) == ["C=host"]
    assert env(env_host=True) == ["B=2", "C=host", "A=1"]
    assert env(env_host=True, unsetenv=("B",), env=("C=3",)) == ["B=host", "C=3", "A=1"]


def test_the_kind_of_machine_and_the_place_of_the_cgroup() -> None:
    linux = _apply(personality="LINUX32", cgroup_parent="/above", container_id="box")["linux"]
    assert linux["personality"] == {"domain": "LINUX32"}
    assert linux["cgroupsPath"] == "/above/box"
    assert _apply(cgroup_conf=("memory.high=1",))["linux"]["resources"]["unified"] == {"memory.high": "1"}
    with pytest.raises(InvalidReference, match="has no name"):
        _apply(cgroup_conf=("=1",))


def test_the_hosts_shared_memory_comes_with_its_ipc_namespace(tmp_path: Path) -> None:
    mounts = {
        mount["destination"]: mount for mount in _apply(ipc="host", volumes=(f"{tmp_path}:/x",))["mounts"]
    }
    assert (mounts["/dev/shm"]["type"], mounts["/dev/shm"]["source"]) == ("bind", "/dev/shm")
    assert (mounts["/x"]["source"], mounts["/proc"]["type"]) == (str(tmp_path), "proc")


def test_volumes_of_the_image_stay_writable_in_a_read_only_root() -> None:
    options: dict[str, Any] = {"image_volumes": ("/data", "relative/", "/", "/dev/shm", "/given")}
    assert _apply(**options)["mounts"] == defaults.config()["mounts"]
    config = _apply(**options, read_only=True, volumes=("/a:/given", "/a:/data/below"))
    found = [mount["destination"] for mount in config["mounts"][len(defaults.config()["mounts"]) :]]
    assert found == ["/given", "/data", "/relative", "/data/below"]
    assert config["mounts"][-2]["options"] == ["nosuid", "nodev", "tmpcopyup"]


def test_a_privileged_container_has_all_that_the_caller_may_give() -> None:
    config = _apply(privileged=True, cap_drop=("ALL",), all_capabilities=("CAP_CHOWN", "CAP_BPF"))
    assert config["process"]["capabilities"]["bounding"] == ["CAP_CHOWN", "CAP_BPF"]
    linux = config["linux"]
    assert linux["maskedPaths"] == linux["readonlyPaths"] == []
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert not any("ro" in mount["options"] for mount in config["mounts"])
    rootless = apply(defaults.config(rootless=True), RunOptions(privileged=True))
    assert "devices" not in {**rootless["linux"], **rootless["linux"].get("resources", {})}
