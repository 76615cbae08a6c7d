"""A store that does not answer for a while is waited for, and what is wrong at once is told at once."""

from __future__ import annotations

import errno
from collections.abc import Callable

import botocore.exceptions
import pytest

from ctllm_ray.base import outage
from ctllm_ray.base.errors import InputError, StorageError
from ctllm_ray.base.outage import is_outage, wait_out

URI = "s3://bucket/run"
AWAY = [
    ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
    ConnectionResetError("reset"),
    TimeoutError(),
    OSError(errno.EBUSY, "SlowDown"),
    OSError(errno.EREMOTEIO, "InternalError"),
    botocore.exceptions.EndpointConnectionError(endpoint_url="http://store"),
    botocore.exceptions.ReadTimeoutError(endpoint_url="http://store"),
    botocore.exceptions.ConnectionClosedError(endpoint_url="http://store"),
    botocore.exceptions.SSLError(endpoint_url="https://store", error="[SSL: UNEXPECTED_EOF_WHILE_READING]"),
]
WRONG = [
    FileNotFoundError(errno.ENOENT, "no"),
    PermissionError(errno.EACCES, "no"),
    OSError(errno.ENOSPC, "full"),
    InputError("no file matches"),
    botocore.exceptions.NoCredentialsError(),
    KeyError("x"),
    botocore.exceptions.SSLError(
        endpoint_url="https://store", error="[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"
    ),
    botocore.exceptions.SSLError(endpoint_url="https://store", error="[SSL: WRONG_VERSION_NUMBER]"),
]


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now, self.pauses = 100.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("time.monotonic", lambda: found.now)
    monkeypatch.setattr("time.sleep", found.sleep)
    monkeypatch.setattr(outage, "PATIENCE_S", 300.0)
    monkeypatch.setattr(outage, "FIRST_S", 1.0)
    return found


def away(clock: Clock, seconds: float, error: Exception = AWAY[0]) -> Callable[[], str]:
    until = clock.now + seconds

    def work() -> str:
        if clock.now < until:
            raise error
        return "found"

    return work


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
def test_a_store_that_is_away_for_minutes_costs_only_time(
    clock: Clock, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wait_out(URI, away(clock, 240, error)) == "found"
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert told[0].startswith(f"ctllm: {URI}: the storage does not answer (")
    assert "answers again" in told[1]


def test_pauses_grow_and_after_five_minutes_the_store_is_named(clock: Clock) -> None:
    began = clock.now
    with pytest.raises(StorageError, match="the storage did not answer for") as refused:
        wait_out(URI, away(clock, 1e9))
    assert clock.pauses[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert 240 < clock.now - began <= 300
    assert (refused.value.where, refused.value.exit_code) == (URI, 5)
    assert "it resumes" in refused.value.remedy


@pytest.mark.parametrize("error", WRONG, ids=lambda error: type(error).__name__)
def test_what_waiting_does_not_mend_is_told_at_once(clock: Clock, error: Exception) -> None:
    assert not is_outage(error)
    with pytest.raises(type(error)):
        wait_out(URI, away(clock, 1e9, error))
    assert clock.pauses == []


def test_who_cannot_wait_is_told_at_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with outage.patience(0), pytest.raises(StorageError):
        wait_out(URI, away(clock, 240))
    assert (clock.pauses, capsys.readouterr().err) == ([], "")
    assert wait_out(URI, away(clock, 240)) == "found"
