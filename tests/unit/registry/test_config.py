"""registries.conf and certs.d, as podman and skopeo read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ocitool.errors import NotFound, OciError
from ocitool.registry.config import ClientConfig, Place, RegistriesConf, trust_for

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "sha256:" + "0" * 64


def conf(tmp_path: Path, text: str) -> RegistriesConf:
    (tmp_path / "registries.conf").write_text(text)
    return RegistriesConf.load({}, tmp_path / "registries.conf")


def test_without_configuration_a_repository_is_where_it_says(tmp_path: Path) -> None:
    places = conf(tmp_path, "").places("reg.example", "a/b")
    assert places.primary == Place("reg.example", "a/b")
    assert places.mirrors == ()


CONF = """
unqualified-search-registries = ["docker.io"]
[[registry]]
location = "reg.example"
insecure = true
[[registry]]
prefix = "reg.example/team"
location = "other.example/moved"
[[registry.mirror]]
location = "mirror.example/copy"
insecure = true
[[registry.mirror]]
location = "second.example"
pull-from-mirror = "digest-only"
[[registry]]
prefix = "*.wild.example"
location = "one.example"
[[registry]]
prefix = "bad.example"
blocked = true
[[registry]]
prefix = "docker.io/library"
[[registry.mirror]]
location = "hub.example/library"
"""


@pytest.mark.parametrize(
    ("name", "primary"),
    [
        ("reg.example/x", Place("reg.example", "x", insecure=True)),
        ("reg.example/team/app", Place("other.example", "moved/app")),
        ("reg.example/teams/app", Place("reg.example", "teams/app", insecure=True)),
        ("reg.example.evil/x", Place("reg.example.evil", "x")),
        ("a.wild.example/x/y", Place("one.example", "x/y")),
        ("a.b.wild.example/x", Place("one.example", "x")),
        ("wild.example/x", Place("wild.example", "x")),
        ("docker.io/library/debian", Place("docker.io", "library/debian")),
        ("docker.io/other/debian", Place("docker.io", "other/debian")),
    ],
)
def test_the_longest_prefix_decides(tmp_path: Path, name: str, primary: Place) -> None:
    registry, _, repository = name.partition("/")
    assert conf(tmp_path, CONF).places(registry, repository).primary == primary


def test_mirrors_are_in_order_and_for_what_they_are_for(tmp_path: Path) -> None:
    first, second = conf(tmp_path, CONF).places("reg.example", "team/app").mirrors
    assert first == Place("mirror.example", "copy/app", insecure=True)
    assert (first.serves("v1"), first.serves(DIGEST)) == (True, True)
    assert second == Place("second.example", "app", pull_from="digest-only")
    assert (second.serves("v1"), second.serves(DIGEST)) == (False, True)
    (hub,) = conf(tmp_path, CONF).places("docker.io", "library/debian").mirrors
    assert hub == Place("hub.example", "library/debian")


def test_a_mirror_that_is_left_without_a_repository_is_an_error(tmp_path: Path) -> None:
    text = '[[registry]]\nprefix = "reg.example/app"\nlocation = "other.example"'
    with pytest.raises(OciError, match=r"registries\.conf: other\.example is not host/repository"):
        conf(tmp_path, text).places("reg.example", "app")


def test_a_blocked_registry_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(OciError, match=r"bad\.example/x is blocked by .*registries\.conf"):
        conf(tmp_path, CONF).places("bad.example", "x")


def test_a_mirror_for_tags_alone(tmp_path: Path) -> None:
    mirror_table = '[[registry.mirror]]\nlocation = "m.example"\n'
    text = f'[[registry]]\nlocation = "r.example"\n{mirror_table}pull-from-mirror = "tag-only"'
    (mirror,) = conf(tmp_path, text).places("r.example", "x").mirrors
    assert (mirror.serves("v1"), mirror.serves(DIGEST)) == (True, False)
    text = f'[[registry]]\nlocation = "r.example"\nmirror-by-digest-only = true\n{mirror_table}'
    (mirror,) = conf(tmp_path, text).places("r.example", "x").mirrors
    assert (mirror.serves("v1"), mirror.serves(DIGEST)) == (False, True)


@pytest.mark.parametrize(
    "text",
    [
        "[[registry",
        "registry = 1",
        "[[registry]]\ninsecure = true",
        '[[registry]]\nlocation = "x"\ninsecure = "yes"',
        "[[registry]]\nlocation = 5",
        '[[registry]]\nlocation = "x"\n[[registry.mirror]]\nlocation = "y"\npull-from-mirror = "never"',
    ],
)
def test_a_file_that_makes_no_sense_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(OciError, match=r"registries\.conf"):
        conf(tmp_path, text)


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(OciError, match="can't be read"):
        RegistriesConf.load({}, tmp_path)


def test_drop_ins_come_later_and_replace(tmp_path: Path) -> None:
    user = tmp_path / "containers"
    (user / "registries.conf.d").mkdir(parents=True)
    (user / "registries.conf").write_text(
        "".join(f'[[registry]]\nlocation = "{name}.example"\ninsecure = true\n' for name in ("a", "c"))
    )
    (user / "registries.conf.d/10.conf").write_text('[[registry]]\nlocation = "b.example"\ninsecure = true')
    (user / "registries.conf.d/20.conf").write_text('[[registry]]\nlocation = "a.example"')
    (user / "registries.conf.d/30.ignored").write_text("broken")
    loaded = RegistriesConf.load({"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/nonexistent"})
    assert not loaded.places("a.example", "x").primary.insecure
    assert loaded.places("b.example", "x").primary.insecure
    assert loaded.places("c.example", "x").primary.insecure


@pytest.mark.parametrize("variable", ["CONTAINERS_REGISTRIES_CONF", "REGISTRIES_CONFIG_PATH"])
def test_the_environment_may_name_the_file(tmp_path: Path, variable: str) -> None:
    (tmp_path / "r.conf").write_text('[[registry]]\nlocation = "a.example"\ninsecure = true')
    loaded = RegistriesConf.load({variable: str(tmp_path / "r.conf")})
    assert loaded.places("a.example", "x").primary.insecure


def test_certificates_are_those_of_the_host_as_it_is_written(tmp_path: Path) -> None:
    directory = tmp_path / "containers/certs.d/reg.example:5000"
    directory.mkdir(parents=True)
    for name in ("b.crt", "a.crt", "client.cert", "client.key", "notes.txt"):
        (directory / name).touch()
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    trust = trust_for("reg.example:5000", ClientConfig(), environ, insecure=False)
    assert trust.authorities == (directory / "a.crt", directory / "b.crt")
    assert trust.identities == ((directory / "client.cert", directory / "client.key"),)
    assert trust.verify
    other = trust_for("reg.example", ClientConfig(), environ, insecure=True)
    assert (other.authorities, other.identities, other.verify) == ((), (), False)


def test_the_command_line_comes_first(tmp_path: Path) -> None:
    (tmp_path / "x.crt").touch()
    config = ClientConfig(ca_file=tmp_path / "ca.pem", cert_file=tmp_path / "me.pem", cert_dir=tmp_path)
    trust = trust_for("reg.example", config, {}, insecure=False)
    assert trust.authorities == (tmp_path / "ca.pem", tmp_path / "x.crt")
    assert trust.identities == ((tmp_path / "me.pem", tmp_path / "me.pem"),)


def test_a_certificate_without_key_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "client.cert").touch()
    with pytest.raises(OciError, match="no key beside it"):
        trust_for("reg.example", ClientConfig(cert_dir=tmp_path), {}, insecure=False)


def test_a_key_may_have_a_file_of_its_own(tmp_path: Path) -> None:
    config = ClientConfig(cert_file=tmp_path / "me.pem", key_file=tmp_path / "me.key")
    trust = trust_for("reg.example", config, {}, insecure=False)
    assert trust.identities == ((tmp_path / "me.pem", tmp_path / "me.key"),)


def test_who_wants_no_valid_certificate_gets_his_way(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert not trust_for("reg.example", ClientConfig(tls_verify=False), environ, insecure=False).verify


def test_a_directory_of_certificates_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no directory .*/nowhere to look for certificates"):
        trust_for("reg.example", ClientConfig(cert_dir=tmp_path / "nowhere"), {}, insecure=False)
