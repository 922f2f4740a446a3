"""Credentials are found where docker and podman keep them, by their rules."""

from __future__ import annotations

import base64
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from support.disks import small_disk

from ocitool.errors import InvalidContent, NotFound, OciError
from ocitool.registry import credentials
from ocitool.registry.credentials import ANONYMOUS, HUB_KEY, Credentials, find, login, logout

REG = "reg.example"


def auth(user: str = "user", password: str = "pw") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def environ(home: Path, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    return {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "KEPT": str(tmp_path / "kept"),
    }


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def helper(environ: dict[str, str], name: str, script: str) -> None:
    path = Path(environ["PATH"].partition(":")[0]) / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


KEEPER = r"""
file() { echo "$KEPT/$(tr /: __)"; }
mkdir -p "$KEPT"
case $1 in
get) cat "$(file)" 2>&- || { echo credentials not found in native keychain; exit 1; } ;;
store) cat > "$KEPT/new"; mv "$KEPT/new" "$(sed 's/.*"ServerURL":"\([^"]*\)".*/\1/' "$KEPT/new" | file)" ;;
erase) rm -f "$(file)" ;;
esac
"""


def test_nobody_is_known_on_a_fresh_machine(environ: dict[str, str]) -> None:
    assert find(REG, "a/b", environ) is ANONYMOUS


@pytest.mark.parametrize(
    "place",
    [
        ".docker/config.json",
        "run/containers/auth.json",
        ".config/containers/auth.json",
        ".dockercfg",
    ],
)
def test_every_file_of_docker_and_podman_is_read(environ: dict[str, str], home: Path, place: str) -> None:
    entries = {REG: auth()}
    write(home / place, entries if place == ".dockercfg" else {"auths": entries})
    assert find(REG, "a/b", environ) == Credentials("user", "pw")


def test_sources_are_asked_in_order(environ: dict[str, str], home: Path, tmp_path: Path) -> None:
    def of(user: str) -> dict[str, Any]:
        return {"auths": {REG: auth(user)}}

    write(home / ".config/containers/auth.json", of("podman"))
    assert find(REG, "a", environ).username == "podman"
    write(home / ".docker/config.json", of("docker"))
    assert find(REG, "a", environ).username == "docker"
    environ["DOCKER_CONFIG"] = str(write(tmp_path / "dc/config.json", of("docker-config")).parent)
    assert find(REG, "a", environ).username == "docker-config"
    environ["REGISTRY_AUTH_FILE"] = str(write(tmp_path / "registry.json", of("registry-auth-file")))
    assert find(REG, "a", environ).username == "registry-auth-file"
    environ["DOCKER_AUTH_CONFIG"] = json.dumps(of("inline"))
    assert find(REG, "a", environ).username == "inline"
    authfile = write(tmp_path / "auth.json", of("authfile"))
    assert find(REG, "a", environ, authfile).username == "authfile"
    with pytest.raises(NotFound, match=r"no file .*nowhere\.json"):
        find(REG, "a", environ, tmp_path / "nowhere.json")
    # A file that was named is the only one.
    assert find("other.example", "a", environ, write(tmp_path / "empty.json", {})) is ANONYMOUS


def test_the_inline_configuration_speaks_only_for_its_registries(environ: dict[str, str], home: Path) -> None:
    environ["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {REG: auth("inline")}})
    write(home / ".docker/config.json", {"auths": {"other.example": auth("file")}})
    assert find("other.example", "a", environ).username == "file"


def test_the_narrowest_key_wins(environ: dict[str, str], home: Path) -> None:
    keys = {REG: "host", f"{REG}/team": "team", f"{REG}/team/app": "app"}
    write(home / ".docker/config.json", {"auths": {key: auth(user) for key, user in keys.items()}})
    assert find(REG, "team/app", environ).username == "app"
    assert find(REG, "team/app/sub", environ).username == "app"
    assert find(REG, "team/application", environ).username == "team"
    assert find(REG, "teams", environ).username == "host"


@pytest.mark.parametrize(
    "key",
    [
        "reg.example.evil",
        "reg.example:5000",
        "evil-reg.example",
        "reg.example@evil",
        "https://reg.example.evil/v2/",
        "reg.example/other",
        "https://reg.example/other",
        "https://evil/reg.example",
    ],
)
def test_rc_19_credentials_of_another_registry_are_not_taken(
    environ: dict[str, str], home: Path, key: str
) -> None:
    write(home / ".docker/config.json", {"auths": {key: auth()}})
    assert find(REG, "a/b", environ) is ANONYMOUS


@pytest.mark.parametrize("key", ["https://reg.example", "http://reg.example/", "https://reg.example/v2/"])
def test_a_key_may_be_a_url(environ: dict[str, str], home: Path, key: str) -> None:
    write(home / ".docker/config.json", {"auths": {key: auth()}})
    assert find(REG, "a/b", environ).username == "user"


@pytest.mark.parametrize("key", [HUB_KEY, "docker.io", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub_is_known_by_all_its_names(environ: dict[str, str], home: Path, key: str) -> None:
    write(home / ".docker/config.json", {"auths": {key: auth()}})
    assert find("docker.io", "library/debian", environ).username == "user"
    assert find(REG, "library/debian", environ) is ANONYMOUS


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": "dXNlcjpwdzp3aXRoOmNvbG9ucw=="}, Credentials("user", "pw:with:colons")),
        ({"auth": "dXNlcjpwdw"}, Credentials("user", "pw")),  # without padding
        ({"auth": base64.b64encode(b"user:pw\0\0").decode()}, Credentials("user", "pw")),
        ({"username": "user", "password": "pw"}, Credentials("user", "pw")),
        ({"identitytoken": "t"}, Credentials(identity_token="t")),
        ({"registrytoken": "t"}, Credentials(registry_token="t")),
        ({}, ANONYMOUS),
        ({"email": "x@y"}, ANONYMOUS),
        ({"username": 5, "password": ["pw"]}, ANONYMOUS),
        ("nonsense", ANONYMOUS),
        (None, ANONYMOUS),
    ],
)
def test_an_entry_is_read_in_every_form(
    environ: dict[str, str], home: Path, entry: Any, expected: Credentials
) -> None:
    write(home / ".docker/config.json", {"auths": {REG: entry}})
    assert find(REG, "a", environ) == expected


@pytest.mark.parametrize("value", ["%%%", "dXNlcg==", "OnB3", "w////w=="])
def test_an_entry_that_is_none_is_an_error_that_does_not_show_it(
    environ: dict[str, str], home: Path, value: str
) -> None:
    write(home / ".docker/config.json", {"auths": {REG: {"auth": value}}})
    with pytest.raises(InvalidContent, match=REG) as caught:
        find(REG, "a", environ)
    assert value not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"auths":{},"auths":{}}'])
def test_a_file_that_is_no_json_object_is_an_error(environ: dict[str, str], home: Path, text: str) -> None:
    write(home / ".docker/config.json", text)
    with pytest.raises(OciError, match=r"config\.json"):
        find(REG, "a", environ)


def test_a_file_that_is_larger_than_any_is_not_read_to_its_end(environ: dict[str, str], home: Path) -> None:
    write(home / ".docker/config.json", {"auths": {}, "more": "x" * (4 << 20)})
    with pytest.raises(OciError, match=r"config\.json"):
        find(REG, "a", environ)


def test_a_file_that_can_not_be_read_is_named(environ: dict[str, str], home: Path) -> None:
    (home / ".docker/config.json").mkdir(parents=True)
    with pytest.raises(OciError, match=r"config\.json can't be read"):
        find(REG, "a", environ)


@pytest.mark.parametrize("choice", [{"credsStore": "keeper"}, {"credHelpers": {REG: "keeper"}}])
def test_a_helper_keeps_what_login_stores(
    environ: dict[str, str], home: Path, choice: dict[str, Any]
) -> None:
    helper(environ, "keeper", KEEPER)
    config = write(home / ".docker/config.json", {"auths": {}, **choice})
    assert find(REG, "a", environ) == ANONYMOUS
    assert "keeper" in login(REG, "user", "s3cret", environ=environ)
    assert find(REG, "a", environ) == Credentials("user", "s3cret")
    assert "s3cret" not in config.read_text()
    logout(REG, environ=environ)
    assert find(REG, "a", environ) == ANONYMOUS


def test_the_helper_of_docker_hub_is_known_by_docker_s_name_for_it(
    environ: dict[str, str], home: Path
) -> None:
    helper(environ, "keeper", KEEPER)
    write(home / ".docker/config.json", {"credHelpers": {HUB_KEY: "keeper"}})
    assert "keeper" in login("docker.io", "user", "s3cret", environ=environ)
    assert find("docker.io", "library/debian", environ) == Credentials("user", "s3cret")


def test_a_helper_need_not_listen(environ: dict[str, str], home: Path) -> None:
    helper(environ, "deaf", "exit 0")
    write(home / ".docker/config.json", {"credsStore": "deaf"})
    assert "deaf" in login(REG, "user", "more than fits into a pipe" * 10_000, environ=environ)


def test_a_helper_that_does_not_forget_is_an_error_and_one_that_never_knew_is_none(
    environ: dict[str, str], home: Path
) -> None:
    helper(environ, "fails", "echo some secret; exit 1")
    helper(environ, "empty", "echo credentials not found in native keychain; exit 1")
    config = write(home / ".docker/config.json", {"credsStore": "fails"})
    with pytest.raises(OciError, match="does not forget") as caught:
        logout(REG, environ=environ)
    assert "secret" not in str(caught.value)
    write(config, {"credsStore": "empty"})
    assert "empty" in logout(REG, environ=environ)


def test_a_token_of_a_helper_is_an_identity_token(environ: dict[str, str], home: Path) -> None:
    helper(environ, "token", """echo '{"Username":"<token>","Secret":"t"}'""")
    write(home / ".docker/config.json", {"credsStore": "token"})
    assert find(REG, "a", environ) == Credentials(identity_token="t")


def test_podman_does_not_know_of_stores(environ: dict[str, str], home: Path) -> None:
    helper(environ, "keeper", "exit 7")
    write(home / ".config/containers/auth.json", {"credsStore": "keeper", "auths": {REG: auth()}})
    assert find(REG, "a", environ).username == "user"


@pytest.mark.parametrize(
    ("name", "script", "words"),
    [
        ("../../x", None, "not the name"),
        ("keeper/../../x", None, "not the name"),
        ("missing", None, "not in PATH"),
        ("fails", "echo some secret; exit 1", "failed"),
        ("chatty", "exec cat /dev/zero", "more than"),
        ("vague", "echo '{}'", "does not give"),
        ("nameless", """echo '{"Username":5,"Secret":"s"}'""", "does not give"),
        ("open", """echo '{"Username":"user","Secret":null}'""", "does not give"),
        ("mute", "exit 0", "JSON"),
    ],
)
def test_rc_19_a_helper_that_misbehaves_is_an_error(
    environ: dict[str, str], home: Path, name: str, script: str | None, words: str
) -> None:
    if script:
        helper(environ, name, script)
    write(home / ".docker/config.json", {"credsStore": name})
    with pytest.raises(OciError, match=words) as caught:
        find(REG, "a", environ)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("seconds", [0.3, 0.0])
@pytest.mark.parametrize("script", ["exec sleep 60", "exec sleep 60 >&-"], ids=["silent", "done speaking"])
def test_rc_19_a_helper_that_hangs_is_ended(
    environ: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch, script: str, seconds: float
) -> None:
    monkeypatch.setattr("ocitool.registry.helpers._SECONDS", seconds)
    helper(environ, "hangs", script)
    write(home / ".docker/config.json", {"credsStore": "hangs"})
    started = time.monotonic()
    with pytest.raises(OciError, match="takes longer"):
        find(REG, "a", environ)
    assert time.monotonic() - started < 30


def test_login_keeps_what_it_does_not_know(environ: dict[str, str], home: Path) -> None:
    before = {"auths": {"other.example": auth("other")}, "HttpHeaders": {"X": "y"}, "détachKeys": "ctrl-e"}
    config = write(home / ".docker/config.json", before)
    assert login(REG, "user", "pw", environ=environ) == str(config)
    after = json.loads(config.read_text())
    assert after == {**before, "auths": {"other.example": auth("other"), REG: auth()}}
    assert find(REG, "a", environ) == Credentials("user", "pw")
    logout(REG, environ=environ)
    assert json.loads(config.read_text()) == before
    with pytest.raises(NotFound):
        logout(REG, environ=environ)


def test_login_writes_a_file_that_only_its_owner_reads(environ: dict[str, str], home: Path) -> None:
    login(REG, "user", "pw", environ=environ)
    config = home / ".docker/config.json"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    config.chmod(0o640)
    login("other.example", "user", "pw", environ=environ)
    assert stat.S_IMODE(config.stat().st_mode) == 0o640
    assert [path.name for path in config.parent.iterdir()] == ["config.json"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
def test_login_leaves_a_file_to_its_owner(environ: dict[str, str], home: Path) -> None:
    config = write(home / ".docker/config.json", {})
    os.chown(config, 1234, 5678)
    login(REG, "user", "pw", environ=environ)
    assert (config.stat().st_uid, config.stat().st_gid) == (1234, 5678)


def test_login_has_all_of_a_file_on_the_disk_before_it_gets_its_name(
    environ: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = home / ".docker/config.json"
    seen: list[tuple[int, bool]] = []
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append((os.fstat(fd).st_size, config.exists())))
    login(REG, "user", "pw", environ=environ)
    assert seen == [(config.stat().st_size, False)]


def test_login_on_a_full_disk_leaves_the_file_as_it_was(environ: dict[str, str], tmp_path: Path) -> None:
    with small_disk(tmp_path, "16k") as disk:
        config = write(disk / "config.json", {"auths": {}})
        before = config.read_bytes()
        with pytest.raises(OciError, match=r"config\.json can't be written: No space left"):
            login(REG, "user", "x" * 100_000, environ=environ, authfile=config)
        assert [path.name for path in disk.iterdir()] == ["config.json"]
        assert config.read_bytes() == before


def test_login_says_where_it_can_not_write(environ: dict[str, str]) -> None:
    with pytest.raises(OciError, match=r"/proc/nowhere/config\.json can't be written"):
        login(REG, "user", "pw", environ=environ, authfile=Path("/proc/nowhere/config.json"))


def test_login_keeps_nothing_that_can_not_be_sent(environ: dict[str, str], home: Path) -> None:
    with pytest.raises(OciError, match="control character"):
        login(REG, "user", "pw\n", environ=environ)
    assert not home.exists()


def test_login_follows_a_link(environ: dict[str, str], home: Path, tmp_path: Path) -> None:
    target = write(tmp_path / "elsewhere.json", {})
    (home / ".docker").mkdir(parents=True)
    (home / ".docker/config.json").symlink_to(target)
    login(REG, "user", "pw", environ=environ)
    assert (home / ".docker/config.json").is_symlink()
    assert REG in target.read_text()


def test_login_does_not_overwrite_what_it_can_not_read(environ: dict[str, str], home: Path) -> None:
    config = write(home / ".docker/config.json", "{broken")
    with pytest.raises(OciError):
        login(REG, "user", "pw", environ=environ)
    assert config.read_text() == "{broken"


def test_login_writes_where_it_is_told(environ: dict[str, str], tmp_path: Path) -> None:
    login(REG, "user", "pw", environ=environ, authfile=tmp_path / "a.json")
    assert find(REG, "a", environ, tmp_path / "a.json").username == "user"
    environ["REGISTRY_AUTH_FILE"] = str(tmp_path / "b.json")
    login("docker.io", "<token>", "t", environ=environ)
    assert json.loads((tmp_path / "b.json").read_text()) == {"auths": {HUB_KEY: {"identitytoken": "t"}}}
    assert find("docker.io", "a", environ) == Credentials(identity_token="t")


@pytest.mark.parametrize(
    "given", [{"username": "a:b"}, {"username": "a\nb"}, {"password": "a\r"}, {"password": "\x7f"}]
)
def test_rc_17_what_can_not_be_sent_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(OciError):
        Credentials(**given)


def test_rc_18_credentials_do_not_show_themselves() -> None:
    shown = repr(Credentials("user", "secret-a", "secret-b", "secret-c"))
    assert "secret" not in shown
    assert "user" in shown
    assert credentials.ANONYMOUS.basic == ""
