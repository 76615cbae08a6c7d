"""Keys: what the file holds, what a server sees of changes, who gets in."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from ctllm_ray.base.errors import InputError, NotFound, RecipeError, StorageError
from ctllm_ray.serving.api import keys
from ctllm_ray.serving.api.keys import KeyRing
from tests.serving.apps import MODEL, Client, until
from tests.serving.conftest import Start

Patch = pytest.MonkeyPatch


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "keys.json")


def status(client: Client, secret: str = "", path: str = "/v1/models") -> int:
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    return client.http.get(path, headers=headers).status_code


def test_the_file_of_keys_holds_no_key(uri: str) -> None:
    secret = keys.create_key(uri, "team-a", 60, 1000)
    assert len(secret) > 40
    assert secret.removeprefix(keys.PREFIX) not in Path(uri).read_text()
    [key] = keys.read_keys(uri)
    assert (key.name, key.requests_per_minute, key.tokens_per_day, key.revoked) == ("team-a", 60, 1000, False)


def test_a_name_is_given_once_and_must_be_one(uri: str) -> None:
    keys.create_key(uri, "a")
    with pytest.raises(InputError, match="already"):
        keys.create_key(uri, "a")
    with pytest.raises(InputError, match="name"):
        keys.create_key(uri, "no name")
    with pytest.raises(InputError, match="tokens_per_day"):
        keys.create_key(uri, "b", tokens_per_day=-1)
    with pytest.raises(NotFound, match="no key is named 'b'"):
        keys.revoke_key(uri, "b")


def test_a_file_that_is_no_file_of_keys_is_told(uri: str) -> None:
    Path(uri).write_text('{"keys": [{"nane": "a"}]}')
    with pytest.raises(StorageError, match="the key file is damaged"):
        KeyRing(uri)


def test_with_keys_only_they_open(start: Start, uri: str) -> None:
    secret = keys.create_key(uri, "a")
    client = start()
    assert status(client, secret) == 200
    assert status(client) == status(client, secret + "x") == status(client, "x") == 401
    basic = client.http.get("/v1/models", headers={"Authorization": f"Basic {secret}"})
    assert basic.status_code == 401
    assert basic.headers["www-authenticate"] == "Bearer"
    assert basic.json()["error"]["code"] == "invalid_api_key"
    assert client.http.get("/v1/models", headers={"Authorization": b"Bearer \xff\xfe"}).status_code == 401


@pytest.mark.parametrize(
    "path", ["/v1/models", "/metrics", "/reports", "/reports/clean", "/nothing", "/v1/../x"]
)
def test_a_stranger_sees_nothing_but_page_and_health(start: Start, uri: str, path: str) -> None:
    keys.create_key(uri, "a")
    client = start()
    assert status(client, path=path) == 401
    assert status(client, path="/health") == status(client, path="/ready") == 200
    assert client.http.post("/v1/completions", content=b"{").status_code == 401
    assert client.http.post("/tokenize", json={"prompt": "a"}).status_code == 401


def test_a_running_server_sees_keys_come_turn_and_go(start: Start, uri: str) -> None:
    client = start()
    assert status(client) == 200  # no key yet: open to this machine
    first = keys.create_key(uri, "a")
    until(lambda: status(client) == 401)
    assert status(client, first) == 200
    second = keys.rotate_key(uri, "a")
    until(lambda: status(client, first) == 401)
    assert status(client, second) == 200
    keys.revoke_key(uri, "a")
    until(lambda: status(client, second) == 403)
    Path(uri).unlink()
    until(lambda: status(client, second) == 401)
    assert status(client) == 401  # who has seen a key never opens again


async def found(known: KeyRing, secret: str, host: str = "localhost") -> str:
    return (await known.holder(secret, host)).name


def test_after_a_rotation_the_old_key_counts_for_the_grace(uri: str) -> None:
    now = [time.time()]
    old = keys.create_key(uri, "a")
    new = keys.rotate_key(uri, "a", grace_s=600)
    known = KeyRing(uri, clock=lambda: now[0])
    assert asyncio.run(found(known, old)) == asyncio.run(found(known, new)) == "a"
    now[0] += 601
    assert asyncio.run(found(known, new)) == "a"
    with pytest.raises(keys.Refused, match="unknown API key"):
        asyncio.run(found(known, old))


async def burst(known: KeyRing, secret: str, count: int) -> list[str]:
    """What each of so many requests at once is told: its key's name, or the code of its refusal."""
    answers = await asyncio.gather(
        *(known.holder(secret, "localhost") for _ in range(count)), return_exceptions=True
    )
    return [answer.code if isinstance(answer, keys.Refused) else answer.name for answer in answers]


def test_of_a_burst_after_a_quiet_time_none_is_served_by_a_revoked_key(uri: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(keys, "LOOK_S", 0.05)
    secret = keys.create_key(uri, "a")
    known = KeyRing(uri)
    keys.revoke_key(uri, "a")
    time.sleep(0.06)
    assert asyncio.run(burst(known, secret, 50)) == ["key_revoked"] * 50


def test_of_a_burst_after_a_quiet_time_none_is_refused_that_has_a_new_key(
    uri: str, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(keys, "LOOK_S", 0.05)
    keys.create_key(uri, "a")
    known = KeyRing(uri)
    secret = keys.create_key(uri, "b")
    time.sleep(0.06)
    assert asyncio.run(burst(known, secret, 100)) == ["b"] * 100


def test_a_look_that_began_too_early_is_not_enough_for_who_comes_while_it_lasts(
    uri: str, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(keys, "LOOK_S", 0.05)
    secret, read = keys.create_key(uri, "a"), keys.read_keys

    def slowly(uri: str) -> tuple[keys.ApiKey, ...]:
        found = read(uri)
        time.sleep(0.3)  # revoked meanwhile
        return found

    async def run() -> list[str]:
        known = KeyRing(uri)
        monkeypatch.setattr(keys, "read_keys", slowly)
        await asyncio.sleep(0.06)
        first = asyncio.create_task(burst(known, secret, 1))
        await asyncio.sleep(0.1)
        monkeypatch.setattr(keys, "read_keys", read)
        keys.revoke_key(uri, "a")
        await asyncio.sleep(0.06)
        return [*await burst(known, secret, 3), *await first]

    assert asyncio.run(run()) == ["key_revoked"] * 3 + ["a"]


def test_many_requests_look_at_the_file_once(uri: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(keys, "LOOK_S", 0.05)
    secret, read, looks = keys.create_key(uri, "a"), keys.read_keys, []
    known = KeyRing(uri)
    monkeypatch.setattr(keys, "read_keys", lambda uri: looks.append(uri) or read(uri))
    time.sleep(0.06)
    assert asyncio.run(burst(known, secret, 100)) == ["a"] * 100
    assert len(looks) == 1


def test_a_storage_that_does_not_answer_leaves_the_keys_known_last(uri: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(keys, "LOOK_S", 0.05)
    monkeypatch.setattr(keys, "ANSWER_S", 0.05)
    secret = keys.create_key(uri, "a")
    known = KeyRing(uri)
    monkeypatch.setattr(keys, "read_keys", lambda uri: time.sleep(0.5) or ())
    time.sleep(0.06)
    assert asyncio.run(burst(known, secret, 9)) == ["a"] * 9


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil", ""]
)
def test_without_keys_other_names_of_this_machine_are_refused(start: Start, host: str) -> None:
    client = start()
    assert client.http.get("/v1/models", headers={"Host": host}).status_code == 403
    assert client.http.get("/v1/models", headers={"Host": "localhost:1"}).status_code == 200
    assert client.http.get("/v1/models", headers={"Host": "[::1]:8000"}).status_code == 200


def test_without_a_key_only_loopback_is_bound(uri: str) -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        keys.check_bind(host, uri)
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org", ""):
        with pytest.raises(RecipeError, match="no API key"):
            keys.check_bind(host, uri)
    keys.create_key(uri, "a")
    keys.check_bind("0.0.0.0", uri)
    keys.revoke_key(uri, "a")
    with pytest.raises(RecipeError, match="no API key"):
        keys.check_bind("0.0.0.0", uri)


def test_a_server_for_other_machines_stays_shut_when_its_keys_are_lost(start: Start, uri: str) -> None:
    assert status(start(keys=KeyRing(uri, host="0.0.0.0"))) == 401


def test_a_ticket_opens_reports_and_nothing_else(start: Start, uri: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<p>漏斗")
    secret = keys.create_key(uri, "a")
    client = start(reports={"clean": str(page), "train": str(tmp_path / "none.html")})
    assert status(client, path="/reports/clean") == 401
    listed = client.http.get("/reports", headers={"Authorization": f"Bearer {secret}"})
    assert listed.json() == {"clean": True, "train": False}
    assert "httponly" in listed.headers["set-cookie"].lower()
    assert (
        client.http.get("/reports/clean").text == "<p>漏斗"
    )  # the client keeps the cookie, as a browser does
    assert status(client) == 401
    assert status(client, path="/reports/clean") == 200
    keys.rotate_key(uri, "a")
    until(lambda: status(client, path="/reports/clean") == 401)


@pytest.mark.parametrize("ticket", ["", "a", "a:9999999999:00", "a:x:y", "b:9999999999:é", ":::"])
def test_a_made_up_ticket_opens_nothing(start: Start, uri: str, ticket: str) -> None:
    keys.create_key(uri, "a")
    cookie = b"ctllm_reports=" + ticket.encode()
    assert start().http.get("/reports/clean", headers={"Cookie": cookie}).status_code == 401


def test_no_prompt_is_in_a_log_unless_asked_for(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    from ctllm_ray.base.recipe_serving import Serve

    caplog.set_level("DEBUG")
    start().complete("悄悄话", max_tokens=1)
    start().http.post("/v1/completions", json={"model": MODEL, "prompt": "悄悄话", "n": "x"})
    assert "悄悄话" not in caplog.text
    start(serve=Serve(log_prompts=True)).complete("悄悄话", max_tokens=1)
    assert "悄悄话" in caplog.text
