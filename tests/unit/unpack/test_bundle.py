"""From an image's configuration to a runtime's, as conversion.md says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ocitool import defaults, strictjson
from ocitool.errors import InvalidContent, InvalidReference
from ocitool.model import ImageConfig
from ocitool.unpack.bundle import Edits, dumps, runtime_config
from ocitool.unpack.idmap import IdMap, Range
from ocitool.unpack.users import User


def image(config: dict[str, Any] | None = None, **fields: Any) -> ImageConfig:
    document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    return ImageConfig.parse(strictjson.dumps({**document, "config": config, **fields}))


def process(config: dict[str, Any] | None = None, user: User = User()) -> dict[str, Any]:  # noqa: B008 - frozen
    found: dict[str, Any] = runtime_config(image(config), user)["process"]
    return found


def test_verbatim_fields_are_verbatim() -> None:
    made = process(
        {
            "WorkingDir": "/a b",
            "Env": ["PATH=/x", "A=", "B=c=d", "HOME=/h"],
            "Entrypoint": ["e", ""],
            "Cmd": ["c"],
        }
    )
    assert (made["cwd"], made["args"], made["env"]) == (
        "/a b",
        ["e", "", "c"],
        ["PATH=/x", "A=", "B=c=d", "HOME=/h"],
    )


@pytest.mark.parametrize(
    ("config", "args"),
    [
        ({"Cmd": ["c"]}, ["c"]),
        ({"Entrypoint": ["e"]}, ["e"]),
        ({}, ["sh"]),
        (None, ["sh"]),
        ({"Cmd": []}, ["sh"]),
    ],
)
def test_a_command_is_put_together(config: dict[str, Any] | None, args: list[str]) -> None:
    assert process(config)["args"] == args


@pytest.mark.parametrize(
    ("given", "cwd"), [(None, "/"), ("", "/"), ("/", "/"), ("/x", "/x"), ("x/y", "/x/y")]
)
def test_a_working_directory_is_absolute(given: str | None, cwd: str) -> None:
    assert process({"WorkingDir": given})["cwd"] == cwd


def test_variables_are_added_only_where_the_image_has_none() -> None:
    made = process({"Env": ["A=1"]}, User(5, 6, (), "/home/x"))
    assert made["env"] == [defaults.PATH, "A=1", "HOME=/home/x"]


def test_users_and_their_capabilities() -> None:
    made = process(user=User(5, 6, (7, 8)))
    assert made["user"] == {"uid": 5, "gid": 6, "additionalGids": [7, 8]}
    assert made["capabilities"]["effective"] == made["capabilities"]["permitted"] == []
    assert "inheritable" not in made["capabilities"]
    root = process()
    assert root["user"] == {"uid": 0, "gid": 0}
    assert root["capabilities"]["effective"] == list(defaults.CAPABILITIES)
    assert root["noNewPrivileges"] is True


def test_annotations_come_from_every_field_and_labels_win() -> None:
    made = runtime_config(
        image(
            {
                "Labels": {"org.opencontainers.image.author": "label", "own": "x"},
                "StopSignal": "SIGUSR1",
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            },
            variant="v2",
            author="field",
            created="2020-01-01T00:00:00Z",
            **{"os.version": "1.2", "os.features": ["a", "b"]},
        ),
        User(),
    )["annotations"]
    prefix = "org.opencontainers.image."
    assert made == {
        "own": "x",
        prefix + "os": "linux",
        prefix + "architecture": "amd64",
        prefix + "variant": "v2",
        prefix + "os.version": "1.2",
        prefix + "os.features": "a,b",
        prefix + "author": "label",
        prefix + "created": "2020-01-01T00:00:00Z",
        prefix + "stopSignal": "SIGUSR1",
        prefix + "exposedPorts": "80/tcp,53/udp",
    }


def test_the_defaults_are_those_of_container_engines() -> None:
    made = runtime_config(image(), User())
    assert made["ociVersion"] == "1.1.0"
    assert {space["type"] for space in made["linux"]["namespaces"]} == {
        "pid",
        "network",
        "ipc",
        "uts",
        "mount",
        "cgroup",
    }
    assert made["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    mounts = {mount["destination"]: mount for mount in made["mounts"]}
    assert list(mounts) == ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"]
    assert {"nosuid", "noexec", "nodev", "ro"} <= set(mounts["/sys"]["options"])
    assert "gid=5" in mounts["/dev/pts"]["options"]
    assert {"/proc/kcore", "/proc/keys", "/sys/firmware"} <= set(made["linux"]["maskedPaths"])
    assert "/proc/sys" in made["linux"]["readonlyPaths"]
    assert made["linux"]["seccomp"] == defaults.seccomp("amd64", defaults.CAPABILITIES)


def test_the_seccomp_profile_is_for_the_images_processor_and_the_containers_capabilities() -> None:
    template = {"process": {"capabilities": {"bounding": ["CAP_SYS_TIME"]}}}
    made = runtime_config(image(architecture="arm64"), User(), edits=Edits(template=template))
    assert made["linux"]["seccomp"] == defaults.seccomp("arm64", ["CAP_SYS_TIME"])


@pytest.mark.parametrize("own", [{"defaultAction": "SCMP_ACT_ALLOW"}, None])
def test_a_template_brings_a_seccomp_profile_of_its_own_or_none(own: dict[str, Any] | None) -> None:
    template = {"linux": {"seccomp": own}}
    assert runtime_config(image(), User(), edits=Edits(template=template))["linux"].get("seccomp") == own


def test_a_rootless_bundle_has_its_own_users() -> None:
    one = runtime_config(image(), User(), ids=IdMap((Range(0, 1000, 1),), (Range(0, 100, 1),)))
    assert {"type": "user"} in one["linux"]["namespaces"]
    assert one["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert one["linux"]["gidMappings"] == [{"containerID": 0, "hostID": 100, "size": 1}]
    assert "resources" not in one["linux"]
    assert not [mount for mount in one["mounts"] if "gid=5" in mount["options"]]
    assert one["mounts"][-1] == runtime_config(image(), User())["mounts"][-1]
    many = IdMap((Range(0, 1000, 1), Range(1, 100_000, 65536)), (Range(0, 100, 1), Range(1, 100_000, 65536)))
    mounts = runtime_config(image(), User(), ids=many)["mounts"]
    assert any("gid=5" in mount["options"] for mount in mounts)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ({"process": []}, "process in the configuration template is a list, not an object"),
        ({"process": {"env": "A=b"}}, "process.env in the configuration template is a string, not a list"),
        (
            {"process": {"env": [1]}},
            "process.env in the configuration template has a whole number for a string",
        ),
        ({"process": {"terminal": 1}}, "process.terminal .* is a whole number, not a boolean"),
        ({"process": {"user": {"uid": 1.5}}}, "process.user.uid .* is a fraction, not a whole number"),
        ({"mounts": [None]}, "mounts in the configuration template has null for an object"),
        ({"linux": {"namespaces": {"type": "pid"}}}, "linux.namespaces .* is an object, not a list"),
        ({"hostname": True}, "hostname in the configuration template is a boolean, not a string"),
    ],
)
def test_a_template_of_another_shape_is_refused_with_the_place(template: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidContent, match=said):
        runtime_config(image(), User(), edits=Edits(template=template))


def test_edits_win_over_the_template_and_that_over_the_image() -> None:
    edits = Edits(
        hostname="box",
        env=["A=2", "PATH", "C=3"],
        annotations={"own": "edited"},
        hooks={"poststop": [{"path": "/bin/true"}]},
        template={
            "hostname": "template",
            "process": {"cwd": "/t", "env": ["A=1", "PATH=/x"], "noNewPrivileges": False},
            "root": {"readonly": True},
            "annotations": {"more": "x"},
            "mounts": [],
        },
    )
    made = runtime_config(image({"WorkingDir": "/w", "Labels": {"own": "x"}}), User(), edits=edits)
    assert made["hostname"] == "box"
    assert made["process"]["env"] == ["A=2", "C=3"]
    assert (made["process"]["cwd"], made["process"]["noNewPrivileges"]) == ("/t", False)
    assert made["root"] == {"path": "rootfs", "readonly": True}
    assert made["mounts"] == []
    assert (made["annotations"]["own"], made["annotations"]["more"]) == ("edited", "x")
    assert made["hooks"] == {"poststop": [{"path": "/bin/true"}]}


@pytest.mark.parametrize("name", ["a b", "x" * 65, "b\u00fcro", "-", "a/b", "a\nb"])
def test_a_host_name_that_no_runtime_would_take_is_refused(name: str) -> None:
    with pytest.raises(InvalidReference, match="is not valid"):
        runtime_config(image(), User(), edits=Edits(hostname=name))


def test_the_document_is_json_whatever_the_names_in_it() -> None:
    made = runtime_config(image({"Env": ["A=ü\n"]}), User(0, 0, (), "/\udcff"))
    assert "A=ü\n" in json.loads(dumps(made).decode("utf-8", "surrogateescape"))["process"]["env"]
