"""API keys: names, limits and hashes in one file that contains no secret.

The file has the SHA-256 of each key. A slow hash such as scrypt protects passwords, which can be guessed from
a dictionary. A key here is 256 random bits, which cannot be guessed at any speed, and a slow hash would cost
50 ms per request. All hashes are compared, in constant time, so the timing reveals nothing about keys.

No request is judged by what was read more than `LOOK_S` before it began: the first one after that looks at
the file, and all others wait for its look. So a new or revoked key counts everywhere within that time. While
the storage does not answer, the keys known last count. The file is written as a whole: two people who change
keys in the same moment should look afterwards (`ctllm keys list`).

Without any key everybody may ask, but only where the server listens to its own machine alone, and only
under a name of that machine: a web page elsewhere could else point a name of its own at 127.0.0.1 and
read answers in the user's browser (DNS rebinding). A server that has seen a key never opens again:
deleting the file locks the doors.
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
PREFIX = "ctllm-"  # secret scanners recognize leaked keys by it
LOOK_S = 1.0  # maximum age of what is known of the file
ANSWER_S = 5.0  # timeout for reading the file
TICKET_S = 3600  # how long a browser may open reports after it sent a key

Limit = Annotated[int, Field(ge=0)]


class Secret(Frozen):
    """The SHA-256 (hexadecimal) of a key, and its expiry in Unix seconds (0: never)."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    until: float = 0.0


class ApiKey(Frozen):
    """A client and its limits; 0 means no limit."""

    name: Annotated[str, Field(pattern=NAME, max_length=64)]
    created: int = 0  # Unix seconds
    requests_per_minute: Limit = 0
    tokens_per_day: Limit = 0  # prompt and answer tokens per UTC day
    revoked: bool = False
    secrets: tuple[Secret, ...] = ()  # newest first; after a rotation an older one may stay valid for a while


class _File(Frozen):
    keys: tuple[ApiKey, ...] = ()


ANYONE = ApiKey(name="anyone")  # the client if there are no keys


def file_of(root: str, name: str) -> str:
    """The key file of a recipe. It is shared by all versions, so users keep their keys."""
    return storage.join(storage.absolute(root), name, FILE)


def read_keys(uri: str) -> tuple[ApiKey, ...]:
    """The keys in a file, revoked ones included; none if the file does not exist. Raises
    `StorageError` if damaged."""
    if not storage.exists(uri):
        return ()
    try:
        return _File.model_validate(storage.read_json(uri)).keys
    except ValidationError as error:
        remedy = "restore the file, or delete it and create the keys again"
        raise StorageError(f"the key file is damaged: {error}", where=uri, remedy=remedy) from None


def create_key(uri: str, name: str, requests_per_minute: int = 0, tokens_per_day: int = 0) -> str:
    """Creates a key and returns it; it cannot be read again.
    Raises `InputError` if the name is taken or invalid."""
    keys = read_keys(uri)
    if any(key.name == name for key in keys):
        raise InputError(
            f"a key named {name!r} already exists", where=uri, remedy="rotate it, or choose another name"
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
    """Replaces the key of this name and returns the new one. The old one stays
    valid for `grace_s` seconds."""
    plain, secret = _new()
    now = time.time()

    def change(key: ApiKey) -> ApiKey:
        old = (Secret(sha256=key.secrets[0].sha256, until=now + grace_s),) if grace_s > 0 else ()
        return key.model_copy(update={"secrets": (secret, *old), "revoked": False})

    _change(uri, name, change)
    return plain


def revoke_key(uri: str, name: str) -> None:
    """Revokes a key. Its name stays taken, and its counts remain."""
    _change(uri, name, lambda key: key.model_copy(update={"revoked": True}))


def _change(uri: str, name: str, change: Callable[[ApiKey], ApiKey]) -> None:
    keys = read_keys(uri)
    if all(key.name != name for key in keys):
        existing = ", ".join(key.name for key in keys) or "none"
        raise NotFound(f"no key is named {name!r}", where=uri, remedy=f"existing keys: {existing}")
    _write(uri, tuple(change(key) if key.name == name else key for key in keys))


def _write(uri: str, keys: tuple[ApiKey, ...]) -> None:
    storage.write_json(uri, _File(keys=keys).model_dump(mode="json"))


def _new() -> tuple[str, Secret]:
    plain = PREFIX + secrets.token_urlsafe(32)
    return plain, Secret(sha256=_hash(plain))


def _hash(plain: str) -> str:
    return hashlib.sha256(plain.encode("utf-8", "surrogateescape")).hexdigest()


def is_loopback(host: str) -> bool:
    """True if only this machine can reach the name or address."""
    bare = host.removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost" or bare.endswith(".localhost")


def check_bind(host: str, uri: str) -> None:
    """Raises `RecipeError` if other machines could use the server without a key."""
    if is_loopback(host) or any(not key.revoked for key in read_keys(uri)):
        return
    raise RecipeError(
        f"serve.host={host} is reachable from other machines, and there is no API key",
        where=uri,
        remedy="create a key with `ctllm keys create`, or keep serve.host=127.0.0.1",
    )


class KeyRing:
    """The keys of a file, as a server uses them. `host` is the address on which it listens."""

    def __init__(self, uri: str, host: str = "127.0.0.1", clock: Callable[[], float] = time.time) -> None:
        self._uri, self._loopback, self._clock = uri, is_loopback(host), clock
        self._looked = time.monotonic()  # start of the last check
        self._looking = asyncio.Lock()
        self._keys = read_keys(uri)
        self._locked = bool(self._keys)  # a key has existed

    async def holder(self, secret: str, host: str) -> ApiKey:
        """The key's owner; `ANYONE` if no key is needed for the host name `host`. Raises `Refused`."""
        keys = await self._current()
        if not self._locked and self._loopback:
            return self._anyone(host)
        if not secret:
            raise Refused(
                "no API key; send the header `Authorization: Bearer KEY`", status=401, code="invalid_api_key"
            )
        key_hash = _hash(secret)
        holders = [key for key in keys if self._matches(key, key_hash)]  # all of them, without early exit
        if not holders:
            raise Refused("unknown API key", status=401, code="invalid_api_key")
        return _valid(holders[0])

    async def visitor(self, ticket: str) -> ApiKey:
        """The owner of a browser's ticket. Raises `Refused`."""
        name, _, rest = ticket.partition(":")
        until, _, signature = rest.partition(":")
        holders = [key for key in await self._current() if key.name == name and key.secrets]
        right = holders and hmac.compare_digest(_signature(holders[0], until).encode(), signature.encode())
        if not right or not until.isdecimal() or int(until[:12]) < self._clock():
            raise Refused(
                "no API key; open the report from the chat page after entering the key",
                status=401,
                code="invalid_api_key",
            )
        return _valid(holders[0])

    def ticket(self, key: ApiKey) -> str:
        """A ticket with which a browser opens reports for `TICKET_S`: a frame cannot send
        a key. A rotation ends it."""
        until = str(int(self._clock()) + TICKET_S)
        return f"{key.name}:{until}:{_signature(key, until)}"

    def _anyone(self, host: str) -> ApiKey:
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if not is_loopback(name):
            message = f"without keys this server accepts requests to localhost only, not to {name[:100]!r}"
            raise Refused(message, status=403, code="host_not_allowed")
        return ANYONE

    def _matches(self, key: ApiKey, key_hash: str) -> bool:
        now = self._clock()
        right = [hmac.compare_digest(secret.sha256, key_hash) for secret in key.secrets]
        fresh = [not secret.until or now < secret.until for secret in key.secrets]
        return any(map(operator.and_, right, fresh))

    async def _current(self) -> tuple[ApiKey, ...]:
        """The keys in the file, at most `LOOK_S` old."""
        since = time.monotonic() - LOOK_S
        async with self._looking:  # one check for all waiting requests
            if self._looked < since:
                self._looked = await self._look()
        return self._keys

    async def _look(self) -> float:
        """Reads the file; returns the time of this state. Without an answer, the known keys stay valid."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_S):
                with patience(0):
                    self._keys = await asyncio.to_thread(read_keys, self._uri)
        except TimeoutError:
            return time.monotonic() + ANSWER_S  # else all would wait for every next check too
        except (InputError, StorageError):
            return began
        self._locked |= bool(self._keys)
        return began


def _valid(key: ApiKey) -> ApiKey:
    if key.revoked:
        raise Refused(f"the API key {key.name!r} is revoked", status=403, code="key_revoked")
    return key


def _signature(key: ApiKey, until: str) -> str:
    """Only who knows the stored hash can make it. It reveals nothing about the hash."""
    return hmac.new(
        key.secrets[0].sha256.encode(), f"{key.name}:{until}".encode(), hashlib.sha256
    ).hexdigest()
