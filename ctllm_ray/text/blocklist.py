"""Looks up domains and URLs in blocklists by category,
in the format of the UT1 (Toulouse) and squidGuard lists.

A list is a folder with one folder per category that holds `domains` and `urls`, plain or as .gz or .zst. A
domain matches itself and everything below it (a.b.example.com is in example.com); a url matches by path
prefix, and only up to a boundary of the path, so that /ad does not match /adventure. Allow lists are honoured
first, whatever the categories say: UT1's own `liste_blanche` is one of its category folders and must never be
read as forbidden.

All entries live in one sorted array of 64-bit hashes beside one byte of category: 320,000 entries take 3 MB
and 0.4 s to build, once per process. A lookup hashes every suffix of the host and every prefix of the path,
and finds them all by one binary search: about 10 us a url. Two of 320,000 entries share a hash with
probability 3e-9.
"""

from __future__ import annotations

import gzip
import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from posixpath import normpath
from urllib.parse import unquote

import numpy as np
import zstandard
from xxhash import xxh3_64_intdigest

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.base.resolve import nearest

#: No rank: the entry allows. Ranks above it are the categories in the order of the recipe.
ALLOWED = 0
#: Path prefixes and host suffixes looked up at most: a URL of 10,000 slashes must not cost 10,000 hashes.
MOST_PARTS = 32

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:/+|/+", re.IGNORECASE)
_AUTHORITY_END = re.compile(r"[/?]")
_BOUNDARY = re.compile(r"[/?&;]")
_DOTS = re.compile(r"/\.\.?(/|$)")
_SLASHES = re.compile(r"/{2,}")
_AS_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")


def host(url: str) -> str:
    """The host of a URL in lower case and punycode, without scheme, user, port, `www.` and
    final dot; "" if it has none."""
    return _parts(url)[0]


def normal(url: str) -> str:
    """Host and path of a URL in the form used for lookup: decoded, lower case,
    no fragment, no final slash."""
    name, path = _parts(url)
    return name + path


def _parts(url: str) -> tuple[str, str]:
    url = url.strip().replace("\\", "/")
    scheme = _SCHEME.match(url)
    rest = url[scheme.end() :] if scheme else url
    rest = rest.partition("#")[0]
    cut = _AUTHORITY_END.search(rest)
    authority, path = (rest[: cut.start()], rest[cut.start() :]) if cut else (rest, "")
    return _host_of(authority), _path_of(path)


def _host_of(authority: str) -> str:
    name = authority.rpartition("@")[2]
    if "%" in name:
        name = unquote(name)
    if name.startswith("["):
        return name[1:].partition("]")[0].lower()
    name = name.partition(":")[0].rstrip(".").lower()
    if not name.isascii():
        name = _punycode(name)
    if _AS_NUMBER.fullmatch(name):
        return _dotted_quad(name)
    return name.removeprefix("www.")


def _punycode(name: str) -> str:
    """The ASCII form of an internationalised host; labels that have none stay as they are."""
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return name


def _dotted_quad(number: str) -> str:
    """The IPv4 address that a browser opens for http://3232235777/ or http://0xC0A80101/."""
    try:
        return str(ipaddress.IPv4Address(int(number, 16 if number.startswith("0x") else 10)))
    except ValueError:
        return number


def _path_of(path: str) -> str:
    if "%" in path:
        path = unquote(path)
    path = path.lower()
    if "//" in path:
        path = _SLASHES.sub("/", path)
    if "/." in path and _DOTS.search(path):
        before, mark, query = path.partition("?")
        path = normpath(before) + mark + query
    return path.rstrip("/?&;")


def keys(url: str) -> list[int]:
    """The hashes under which a list may hold this URL: every suffix of its host, every prefix of its path."""
    name, path = _parts(url)
    return [xxh3_64_intdigest(key.encode()) for key in (*_suffixes(name), *_prefixes(name, path))]


def _suffixes(name: str) -> Iterator[str]:
    """example.com for a.example.com, but never a bare top-level domain, and no part of an address."""
    yield name
    if ":" in name or (name[-1:].isdigit() and name.replace(".", "").isdigit()):
        return
    for _ in range(MOST_PARTS):
        _, dot, name = name.partition(".")
        if not dot or "." not in name:
            return
        yield name


def _prefixes(name: str, path: str) -> Iterator[str]:
    for n, boundary in enumerate(_BOUNDARY.finditer(path, 1)):
        if n == MOST_PARTS:
            break
        yield name + path[: boundary.start()]
    if path:
        yield name + path


@dataclass(frozen=True, eq=False)
class Blocklist:
    """Sorted hashes (uint64) and their ranks (uint8): 0 allows, i is the i-th category."""

    labels: tuple[str, ...]
    hashes: np.ndarray
    ranks: np.ndarray

    def category(self, url: str) -> str:
        """The first category of the recipe that holds the URL; "" if none does or
        the URL is allowed or empty."""
        if not url or not len(self.hashes):
            return ""
        sought = np.array(keys(url), np.uint64)
        at = self.hashes.searchsorted(sought)
        at[at == len(self.hashes)] = 0
        result = self.ranks[at[self.hashes[at] == sought]]
        return self.labels[result.min()] if result.size else ""


@cache
def load(
    folder: str, categories: tuple[str, ...], allow: tuple[str, ...], allow_urls: tuple[str, ...]
) -> Blocklist:
    """Loads categories of a blocklist folder. Raises `RecipeError` if the folder lacks a category."""
    known = _categories(folder)
    for name in (*categories, *allow):
        if name not in known:
            raise RecipeError(f"unknown category {name!r}", where=folder, remedy=nearest(name, known))
    if len(categories) > np.iinfo(np.uint8).max - 1:
        raise RecipeError(
            f"{len(categories)} categories are too many: a blocklist takes at most 254", where=folder
        )
    groups = [
        _hash_entries(url.encode() for url in allow_urls),
        *(_of(folder, name) for name in allow),
        *(_of(folder, name) for name in categories),
    ]
    ranks = [ALLOWED] * (1 + len(allow)) + list(range(1, len(categories) + 1))
    hashes = np.concatenate(groups)
    order = np.argsort(hashes, kind="stable")  # stable: the first group that names an entry decides its rank
    hashes, first = np.unique(hashes[order], return_index=True)
    of = np.repeat(np.array(ranks, np.uint8), [len(group) for group in groups])
    return Blocklist(("", *categories), hashes, of[order][first])


def _categories(folder: str) -> list[str]:
    fs, path = storage.filesystem(folder)
    if not storage.exists(folder):
        raise InputError(
            "the blocklist folder does not exist",
            where=folder,
            remedy="set `folder` to the folder that holds one folder per category",
        )
    return sorted(i["name"].rpartition("/")[2] for i in fs.ls(path, detail=True) if i["type"] == "directory")


def _of(folder: str, category: str) -> np.ndarray:
    files = storage.list_names(storage.join(folder, category))
    results = [
        n
        for n in files
        if n in {f"{kind}{end}" for kind in ("domains", "urls") for end in ("", ".gz", ".zst")}
    ]
    if not results:
        remedy = "put a file `domains` or `urls` (plain, .gz or .zst) into the category's folder"
        raise InputError(f"the blocklist category {category!r} holds no list", where=folder, remedy=remedy)
    return np.concatenate([_hash_entries(_lines(storage.join(folder, category, name))) for name in results])


def _lines(uri: str) -> list[bytes]:
    data = storage.read_bytes(uri)
    try:
        if uri.endswith(".zst"):
            data = zstandard.ZstdDecompressor().stream_reader(data).read()
        elif uri.endswith(".gz"):
            data = gzip.decompress(data)
    except (zstandard.ZstdError, OSError, EOFError) as error:
        raise InputError(
            f"the blocklist cannot be decompressed: {error}", where=uri, remedy="download the list again"
        ) from None
    return data.splitlines()


def _hash_entries(entries: Iterable[bytes]) -> np.ndarray:
    """The hash of every entry that is not empty and not a comment."""
    lines = (line.strip() for line in entries)
    return np.array(
        [xxh3_64_intdigest(_entry(line)) for line in lines if line and not line.startswith(b"#")], np.uint64
    )


_PLAIN = re.compile(rb"[a-z0-9_-]+(\.[a-z0-9_-]+)+")


def _entry(line: bytes) -> bytes:
    """The lookup form of an entry, as `normal` gives it. Nine entries of ten are plain
    domains and need no parsing."""
    if _PLAIN.fullmatch(line):
        return line.removeprefix(b"www.")
    return normal(line.decode("utf-8", "replace")).encode()
