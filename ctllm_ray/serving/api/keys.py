"""Who may ask: several keys, each with a name and limits, in one file that holds no secret.

The file has SHA-256 of each key. A slow hash such as scrypt protects passwords, which are guessed from a
dictionary; a key here is 256 random bits, which nobody guesses at any speed, and a slow hash would cost every
request 50 ms. Hashes are compared in constant time and all of them, so the time tells nothing about which
key, or how much of it, was right.

No request is judged by what was read more than `LOOK_S` before it began: the first one after that looks at
the file, and all others wait for its look. So a new or revoked key counts everywhere within that time. While
the storage does not answer, the keys known last count. The file is written as a whole: two people who change
keys in the same moment should look afterwards (`ctllm keys list`).

Without any key everybody may ask, but only where the server listens to its own machine alone, and only under
a name of that machine: a web page elsewhere could else point a name of its own at 127.0.0.1 and read answers
in the user's browser (DNS rebinding). A server that has seen a key never opens again: deleting the file locks
the doors.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import operator
import secrets
import time
from collections.abc import Callable
from typing import Annotated

from pydantic import Field, ValidationError

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, NotFound, RecipeError, StorageError
from ctllm_ray.base.outage import patience
from ctllm_ray.base.recipe_training import NAME, Frozen
from ctllm_ray.serving.api.errors import Refused

FILE = "keys.json"
PREFIX = "ctllm-"  # so that a scanner for leaked secrets finds one
LOOK_S = 1.0  # that what is known of the file may be old
ANSWER_S = 5.0  # for the storage to answer a look
TICKET_S = 3600  # how long a browser may open reports after it showed a key

Limit = Annotated[int, Field(ge=0)]


class Secret(Frozen):
    """The SHA-256 of a key, hexadecimal, and until when it counts (Unix seconds; 0: without end)."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    until: float = 0.0


class ApiKey(Frozen):
    """Who asks, and how much. Limits of 0 are none."""

    name: Annotated[str, Field(pattern=NAME, max_length=64)]
    created: int = 0  # Unix seconds
    requests_per_minute: Limit = 0
    tokens_per_day: Limit = 0  # prompts and answers, UTC days
    revoked: bool = False
    secrets: tuple[Secret, ...] = ()  # the newest first; an older one may count for a while after a rotation


class _File(Frozen):
    keys: tuple[ApiKey, ...] = ()


ANYONE = ApiKey(name="anyone")  # who asks where there are no keys


def file_of(root: str, name: str) -> str:
    """The keys of a recipe: beside its versions, since a new version of a model keeps its users."""
    return storage.join(storage.absolute(root), name, FILE)


def read_keys(uri: str) -> tuple[ApiKey, ...]:
    """The keys of a file, revoked ones too; none where there is no file. Raises `StorageError` for another
    file."""
    if not storage.exists(uri):
        return ()
    try:
        return _File.model_validate(storage.read_json(uri)).keys
    except ValidationError as error:
        remedy = "restore the file, or delete it and create keys anew"
        raise StorageError(f"not a file of keys: {error}", where=uri, remedy=remedy) from None


def create_key(uri: str, name: str, requests_per_minute: int = 0, tokens_per_day: int = 0) -> str:
    """The new key, told this once. Raises `InputError` for a name that is taken or no name."""
    keys = read_keys(uri)
    if any(key.name == name for key in keys):
        raise InputError(
            f"there is a key {name!r} already", where=uri, remedy="rotate it, or take another name"
        )
    plain, secret = _new()
    try:
        key = ApiKey(
            name=name,
            created=int(time.time()),
            requests_per_minute=requests_per_minute,
            tokens_per_day=tokens_per_day,
            secrets=(secret,),
        )
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InputError(
            f"{wrong['loc'][0]}: {wrong['msg']}", where=name, remedy="for example team-a"
        ) from None
    _write(uri, (*keys, key))
    return plain


def rotate_key(uri: str, name: str, grace_s: float = 0.0) -> str:
    """A new key in the place of the one with this name; the old one counts for `grace_s` seconds more."""
    plain, secret = _new()
    now = time.time()

    def change(key: ApiKey) -> ApiKey:
        old = (Secret(sha256=key.secrets[0].sha256, until=now + grace_s),) if grace_s > 0 else ()
        return key.model_copy(update={"secrets": (secret, *old), "revoked": False})

    _change(uri, name, change)
    return plain


def revoke_key(uri: str, name: str) -> None:
    """Whoever shows the key is refused from now on. Its name stays taken, and so do its counts."""
    _change(uri, name, lambda key: key.model_copy(update={"revoked": True}))


def _change(uri: str, name: str, change: Callable[[ApiKey], ApiKey]) -> None:
    keys = read_keys(uri)
    if all(key.name != name for key in keys):
        there = ", ".join(key.name for key in keys) or "none"
        raise NotFound(f"there is no key {name!r}", where=uri, remedy=f"there are: {there}")
    _write(uri, tuple(change(key) if key.name == name else key for key in keys))


def _write(uri: str, keys: tuple[ApiKey, ...]) -> None:
    storage.write_json(uri, _File(keys=keys).model_dump(mode="json"))


def _new() -> tuple[str, Secret]:
    plain = PREFIX + secrets.token_urlsafe(32)
    return plain, Secret(sha256=_hash(plain))


def _hash(plain: str) -> str:
    return hashlib.sha256(plain.encode("utf-8", "surrogateescape")).hexdigest()


def is_loopback(host: str) -> bool:
    """True for a name or an address that only this machine reaches."""
    bare = host.removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost" or bare.endswith(".localhost")


def check_bind(host: str, uri: str) -> None:
    """Raises `RecipeError` where a server would be open to other machines without a key."""
    if is_loopback(host) or any(not key.revoked for key in read_keys(uri)):
        return
    raise RecipeError(
        f"serve.host={host} is reached from other machines, and there is no key",
        where=uri,
        remedy="make one with `ctllm keys create`, or leave serve.host at 127.0.0.1",
    )


class KeyRing:
    """The keys of a file as a server sees them. `host` is where it listens."""

    def __init__(self, uri: str, host: str = "127.0.0.1", clock: Callable[[], float] = time.time) -> None:
        self._uri, self._loopback, self._clock = uri, is_loopback(host), clock
        self._looked = time.monotonic()  # when the last look began
        self._looking = asyncio.Lock()
        self._keys = read_keys(uri)
        self._locked = bool(self._keys)  # a key was seen

    async def holder(self, secret: str, host: str) -> ApiKey:
        """Whose key it is; `ANYONE` where no key is needed, asked under the name `host`. Raises `Refused`."""
        keys = await self._current()
        if not self._locked and self._loopback:
            return self._anyone(host)
        if not secret:
            raise Refused("no API key: send `Authorization: Bearer KEY`", status=401, code="invalid_api_key")
        given = _hash(secret)
        results = [key for key in keys if self._matches(key, given)]  # all of them: no early end
        if not results:
            raise Refused("this API key is not known here", status=401, code="invalid_api_key")
        return _valid(results[0])

    async def visitor(self, ticket: str) -> ApiKey:
        """Whose ticket a browser shows (`ticket`). Raises `Refused`."""
        name, _, rest = ticket.partition(":")
        until, _, signature = rest.partition(":")
        results = [key for key in await self._current() if key.name == name and key.secrets]
        right = results and hmac.compare_digest(_signature(results[0], until).encode(), signature.encode())
        if not right or not until.isdecimal() or int(until[:12]) < self._clock():
            raise Refused(
                "no API key, and no report was asked for with one", status=401, code="invalid_api_key"
            )
        return _valid(results[0])

    def ticket(self, key: ApiKey) -> str:
        """What lets a browser open reports for `TICKET_S`: a frame cannot send a key. A rotation ends it."""
        until = str(int(self._clock()) + TICKET_S)
        return f"{key.name}:{until}:{_signature(key, until)}"

    def _anyone(self, host: str) -> ApiKey:
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if not is_loopback(name):
            message = f"without keys this server answers to localhost only, not to {name[:100]!r}"
            raise Refused(message, status=403, code="host_not_allowed")
        return ANYONE

    def _matches(self, key: ApiKey, given: str) -> bool:
        now = self._clock()
        right = [hmac.compare_digest(secret.sha256, given) for secret in key.secrets]
        fresh = [not secret.until or now < secret.until for secret in key.secrets]
        return any(map(operator.and_, right, fresh))

    async def _current(self) -> tuple[ApiKey, ...]:
        """The keys as the file had them `LOOK_S` before now, or later."""
        since = time.monotonic() - LOOK_S
        async with self._looking:  # one look for all who wait
            if self._looked < since:
                self._looked = await self._look()
        return self._keys

    async def _look(self) -> float:
        """Reads the file: as of when it is known. Without an answer, what is known goes on counting."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_S):
                with patience(0):
                    self._keys = await asyncio.to_thread(read_keys, self._uri)
        except TimeoutError:
            return time.monotonic() + ANSWER_S  # else all would wait for each next look, too
        except (InputError, StorageError):
            return began
        self._locked |= bool(self._keys)
        return began


def _valid(key: ApiKey) -> ApiKey:
    if key.revoked:
        raise Refused(f"the API key {key.name!r} is revoked", status=403, code="key_revoked")
    return key


def _signature(key: ApiKey, until: str) -> str:
    """Only who knows the stored hash makes it; it tells nothing about the hash."""
    return hmac.new(
        key.secrets[0].sha256.encode(), f"{key.name}:{until}".encode(), hashlib.sha256
    ).hexdigest()
