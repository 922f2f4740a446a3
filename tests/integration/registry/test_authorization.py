"""Which password or token goes with which request, and for how long."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
from support.registry_fake import FakeRegistry, Request, Response
from support.registry_images import client, layers_of, repository, stocked
from support.registry_tokens import covers, scope_of

from ocitool import mediatypes
from ocitool.errors import Unauthorized
from ocitool.model import Descriptor

if TYPE_CHECKING:
    from pathlib import Path

    from support.registry_tokens import TokenServer

USER = {"username": "user", "password": "secret-password"}


def basic(user: str = "user", password: str = "secret-password") -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def test_a_password_that_is_refused_is_sent_once(fake: FakeRegistry) -> None:
    fake.before.append(lambda _: Response(401, {"WWW-Authenticate": 'Basic realm="r"'}))
    with client(USER) as made, pytest.raises(Unauthorized):
        repository(made, fake.name).resolve("v1")
    assert [request.authorization for request in fake.log] == ["", f"Basic {basic()}"]


def test_a_token_is_not_sent_beyond_its_life(fake: FakeRegistry, token_server: TokenServer) -> None:
    stocked(fake, 10)
    token_server.protects(fake)
    token_server.told_life = 1e-6
    with client(USER) as made:
        for _ in range(2):
            repository(made, fake.name).resolve("v1")
    assert len(token_server.log) == 2
    assert len({request.authorization for request in fake.log}) == 3  # none, and two tokens


@pytest.mark.parametrize("life", [0, -5])
def test_a_life_that_is_over_before_it_begins_is_not_believed(
    fake: FakeRegistry, token_server: TokenServer, life: float
) -> None:
    stocked(fake, 10)
    token_server.protects(fake)
    token_server.told_life = life
    with client(USER) as made:
        for _ in range(2):
            repository(made, fake.name).resolve("v1")
    assert len(token_server.log) == 1


def test_a_token_goes_only_with_what_it_was_given_for(fake: FakeRegistry, token_server: TokenServer) -> None:
    stocked(fake, 10)
    token_server.protects(fake)
    with client(USER) as made:
        repo = repository(made, fake.name)
        repo.tag(repo.resolve("v1"), "v2")
    first, *others = fake.log
    assert first.authorization == ""
    for request in others:
        _, scopes = token_server.issued[request.authorization.removeprefix("Bearer ")]
        assert covers(scopes, scope_of(request))


def test_a_repository_is_not_asked_with_a_token_for_another_ones_credentials(
    fake: FakeRegistry, token_server: TokenServer, tmp_path: Path
) -> None:
    desc = stocked(fake, 10, name="from/repo")
    token_server.protects(fake)
    token_server.users = {"reader": "one", "writer": "two"}
    auths = {
        f"{fake.name}/from": {"auth": basic("reader", "one")},
        f"{fake.name}/to": {"auth": basic("writer", "two")},
    }
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": auths}))
    layer = Descriptor.of(mediatypes.OCI_LAYER, layers_of(fake, "from/repo")[-1])
    with client(authfile=file) as made:
        source = repository(made, fake.name, "from/repo")
        # The token for this would do for reading too.
        assert repository(made, fake.name, "to/repo").mount(layer, source)
        assert source.resolve("v1") == desc
    assert [request.authorization for request in token_server.log] == [
        f"Basic {basic('writer', 'two')}",
        f"Basic {basic('reader', 'one')}",
    ]


@pytest.mark.parametrize("also", ['Basic realm="r"', 'Basic realm="r", Bearer realm=""'])
def test_a_bearer_challenge_that_names_no_token_service_is_none(fake: FakeRegistry, also: str) -> None:
    desc = stocked(fake, 10)

    def gate(request: Request) -> Response | None:
        if request.authorization == f"Basic {basic()}":
            return None
        return Response(401, {"WWW-Authenticate": f'Bearer service="s", {also}'})

    fake.before.append(gate)
    with client(USER) as made:
        assert repository(made, fake.name).resolve("v1") == desc


def test_a_token_that_goes_on_being_too_new_is_waited_for_once(
    fake: FakeRegistry, token_server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    challenge = token_server.challenge("repository:some/repo:pull") + ',error="invalid_token"'
    fake.before.append(lambda _: Response(401, {"WWW-Authenticate": challenge}))
    with client(USER) as made:
        repo = repository(made, fake.name)
        monkeypatch.setattr(repo._repo.site.endpoint.auth, "_pause", pauses.append)
        with pytest.raises(Unauthorized):
            repo.resolve("v1")
    sent = [request.authorization for request in fake.log]
    assert len(sent) == 1 + len(pauses) + len(token_server.log)
    assert all(sent.count(token) <= 2 for token in sent)
