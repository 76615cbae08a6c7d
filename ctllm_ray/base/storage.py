"""Files by URI, local or remote (s3://, gs://, oss:// and
others through fsspec). Only this module knows the difference.

Local paths have no scheme. Credentials and endpoints come from the environment (`AWS_ENDPOINT_URL`,
`AWS_ACCESS_KEY_ID`, ...), never from a recipe. Every write is atomic: it goes to a temporary local file,
which appears under its name in one step. So a reader never meets half a file, and a killed writer leaves
none. During an outage of the storage, calls wait (outage.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import fsspec

from ctllm_ray.base.errors import InputError, StorageError
from ctllm_ray.base.outage import wait_out
from ctllm_ray.base.storage_errors import explain_errors
from ctllm_ray.base.uris import is_remote

#: Prefix of the name of a file that is still being written.
TEMPORARY = ".writing-"

#: Bytes to fetch from a remote file at once. s3fs would take 50 MiB, fifty times what a page of a Parquet
#: column needs.
READ_AHEAD_BYTES = 8 << 20

T = TypeVar("T")

_GLOB = re.compile(r"[*?\[]")
_UNDECODABLE = re.compile("[\udc80-\udcff]")  # bytes of a file name that are not UTF-8, as Python holds them


@dataclass(frozen=True)
class File:
    """An input file. `name` is its path below the fixed part of the pattern; ids contain it."""

    uri: str
    name: str
    size: int
    version: str  # ETag or modification time: detects changes after reading
    odd: str = ""  # why it cannot be read: it is a pipe, a link to nothing, a folder...


def join(uri: str, *parts: str) -> str:
    """Joins a URI and a relative path."""
    return "/".join([uri.rstrip("/"), *parts])


def absolute(uri: str) -> str:
    """The URI; a local path becomes absolute and without a scheme, since workers
    may run in another folder."""
    return uri if is_remote(uri) else os.path.abspath(uri.removeprefix("file://"))


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URI and the path in it."""
    with explain_errors(uri, "opened"):
        if "::" not in uri:
            return fsspec.core.url_to_fs(uri)
        # fsspec would take it for a chain of file systems
        kind = fsspec.get_filesystem_class(uri.partition("://")[0] if is_remote(uri) else "file")
        return kind(**kind._get_kwargs_from_urls(uri)), kind._strip_protocol(uri)


def list_files(pattern: str) -> list[File]:
    """The files that match a path or glob, by name. Raises `InputError` if
    nothing matches or it is a folder.

    What matches and is no file that can be read is listed too, with the reason: a folder where the pattern asks for
    a suffix, a pipe, a link to nothing. Bytes of a name that are not UTF-8 are percent-encoded in `name`.
    """
    fs, path = filesystem(pattern)

    def look() -> tuple[dict[str, dict], str]:
        fs.invalidate_cache()
        entries = (_GLOB.search(path) and fs.glob(path, detail=True)) or _single(fs, path, pattern)
        folders = "." in path.rpartition("/")[2]
        entries = {n: info for n, info in entries.items() if info["type"] != "directory" or folders}
        base = _fixed_part(path)
        if not entries:
            raise _no_match(fs, base, pattern)
        return entries, base

    result, base = _call_store(pattern, "listed", look)
    return [
        File(
            _uri(fs, name, pattern),
            _UNDECODABLE.sub(_percent, name[len(base) :].lstrip("/")),
            0 if _find_oddity(name, info) else info["size"],
            _version(info),
            _find_oddity(name, info),
        )
        for name, info in sorted(result.items())
    ]


def _find_oddity(path: str, info: dict) -> str:
    """Why an entry of a listing cannot be read as a file; empty if it can."""
    if info["type"] == "directory":
        return "it is a folder"
    if "islink" not in info:  # not on a local disk
        return ""
    if not os.path.exists(path):
        return "it is a link to nothing"
    if not os.path.isfile(path):
        return "it is no regular file, but a pipe, a socket or a device"
    return "" if os.access(path, os.R_OK) else "there is no permission to read it"


def _percent(match: re.Match[str]) -> str:
    return f"%{ord(match[0]) - 0xDC00:02X}"


def _no_match(fs: Any, base: str, pattern: str) -> InputError:
    """The error for a pattern without files. Raises another error if the folder may not be listed."""
    if not fs.exists(base):
        return InputError(
            f"the folder or bucket {base} does not exist", where=pattern, remedy="check the path"
        )
    fs.ls(base)  # a glob treats a folder without list permission as empty; this call does not
    remedy = "check the path; put a glob in quotes so that the shell does not expand it"
    if "[" in pattern:
        remedy += "; '[' begins a set of characters: write [[] for the character itself"
    return InputError("no file matches", where=pattern, remedy=remedy)


def _uri(fs: Any, path: str, pattern: str) -> str:
    return fs.unstrip_protocol(path) if is_remote(pattern) else path


def _single(fs: Any, path: str, pattern: str) -> dict[str, dict]:
    if not fs.exists(path):
        return {}
    info = fs.info(path)
    if info["type"] == "directory":
        remedy = f"give files, for example {join(pattern, '*')}"
        raise InputError("the path is a folder, but files are expected", where=pattern, remedy=remedy)
    return {path: info}


def _fixed_part(path: str) -> str:
    """The folder above the first wildcard, or the folder of a single file."""
    match = _GLOB.search(path)
    return (path[: match.start()] if match else path).rpartition("/")[0]


def _version(info: dict) -> str:
    return str(info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified") or "")


def open_input(uri: str) -> IO[bytes]:
    """Opens a seekable binary stream. Raises `InputError` if it cannot be opened."""
    if not is_remote(uri):  # without fsspec: a third of the time, which many small files consist of
        return _call_store(uri, "read", lambda: open(uri.removeprefix("file://"), "rb"))
    fs, path = filesystem(uri)
    return _call_store(uri, "read", lambda: fs.open(path, "rb", block_size=READ_AHEAD_BYTES))


@contextmanager
def reading(uri: str) -> Iterator[IO[bytes]]:
    """A seekable binary stream whose later read errors (a lost connection) are `InputError`s too."""
    with open_input(uri) as stream:
        yield cast(IO[bytes], _Explained(stream, uri))


@contextmanager
def reading_ranges(uri: str) -> Iterator[IO[bytes]]:
    """Like `reading`, for a few ranges of a large file: nothing is read ahead."""
    fs, path = filesystem(uri)
    options = {"cache_type": "none"} if is_remote(uri) else {}
    with _call_store(uri, "read", lambda: fs.open(path, "rb", **options)) as stream:
        yield cast(IO[bytes], _Explained(stream, uri))


def fetch(uri: str, path: str) -> None:
    """Copies a file to a local path. Raises `InputError` if it cannot be read."""
    fs, remote = filesystem(uri)
    _call_store(uri, "read", lambda: fs.get_file(remote, path))


class _Explained(io.RawIOBase):
    """A stream whose read errors are `InputError`s, so that a lost connection never
    looks like a damaged file."""

    def __init__(self, stream: IO[bytes], uri: str) -> None:
        self._stream, self._uri = stream, uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        place = self._stream.tell()

        def again() -> bytes:
            if self._stream.tell() != place:
                self._stream.seek(place)
            return self._stream.read(-1 if size is None else size)

        return _call_store(self._uri, "read", again)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with explain_errors(self._uri, "read"):
            return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def exists(uri: str) -> bool:
    """True if a file or folder exists at the URI. It asks the storage, not a cache."""
    fs, path = filesystem(uri)

    def look() -> bool:
        fs.invalidate_cache()
        return bool(fs.exists(path))

    return _call_store(uri, "looked up", look)


def list_names(folder: str) -> list[str]:
    """The sorted names of the files in a folder; empty if the folder does not exist."""
    return _list(folder, "file")


def list_folders(folder: str) -> list[str]:
    """The sorted names of the folders in a folder; empty if the folder does not exist."""
    return _list(folder, "directory")


def _list(folder: str, kind: str) -> list[str]:
    fs, path = filesystem(folder)

    def look() -> list[str]:
        fs.invalidate_cache()
        entries = fs.ls(path, detail=True) if fs.exists(path) else []
        return sorted(each["name"].rstrip("/").rpartition("/")[2] for each in entries if each["type"] == kind)

    return _call_store(folder, "listed", look)


def list_tree(folder: str) -> list[str]:
    """The sorted paths of all files below a folder, relative to it; empty if the folder does not exist."""
    fs, path = filesystem(folder)

    def look() -> list[str]:
        fs.invalidate_cache()
        return sorted(file[len(path.rstrip("/")) + 1 :] for file in fs.find(path)) if fs.exists(path) else []

    return _call_store(folder, "listed", look)


def remove(uri: str) -> None:
    """Deletes a file if it exists."""
    fs, path = filesystem(uri)

    def delete() -> None:
        with suppress(FileNotFoundError):  # another process may be faster
            if fs.exists(path):
                fs.rm_file(path)

    _call_store(uri, "deleted", delete)


def read_bytes(uri: str) -> bytes:
    """The whole content of a small file."""
    with reading(uri) as stream:
        return stream.read()


def size_and_sha256(uri: str) -> tuple[int, str]:
    """The size of a file in bytes, and its SHA-256 (hexadecimal); about 1 GB/s per core."""
    with reading(uri) as stream:
        return hash_stream(stream)


def hash_stream(stream: IO[bytes]) -> tuple[int, str]:
    """The same for the rest of a stream."""
    digest, size = hashlib.sha256(), 0
    while block := stream.read(READ_AHEAD_BYTES):
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()


def read_json(uri: str) -> Any:
    """A parsed JSON file. Raises `StorageError` if it is not JSON."""
    try:
        return json.loads(read_bytes(uri))
    except ValueError as error:
        raise StorageError(
            f"the file is not valid JSON: {error}", where=uri, remedy="restore the file or delete it"
        ) from None


def write_bytes(uri: str, content: bytes) -> None:
    """Writes a small file in one step."""
    with writing(uri) as local:
        Path(local).write_bytes(content)


def write_json(uri: str, value: Any, indent: int | None = 1) -> None:
    """Writes JSON with sorted keys in one step; without `indent` ten times as fast.

    Bytes of file names that are not UTF-8 become escapes.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=True) + "\n"
    write_bytes(uri, text.encode(errors="backslashreplace"))


@contextmanager
def writing(uri: str) -> Iterator[str]:
    """A local path to write to. If the block succeeds, the file appears under `uri`; else nothing is left."""
    remote = is_remote(uri)
    target = uri.removeprefix("file://")
    with explain_errors(uri, "written"):
        folder = tempfile.gettempdir() if remote else str(Path(target).parent)
        if not remote:
            _refuse_special(Path(target))
            Path(folder).mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
        os.close(handle)
    try:
        with explain_errors(uri, "written"):
            yield temporary
            if not remote:
                _publish(temporary, target)
        if remote:
            fs, path = filesystem(uri)
            _call_store(uri, "written", lambda: fs.put_file(temporary, path))
    finally:
        Path(temporary).unlink(missing_ok=True)


def _refuse_special(target: Path) -> None:
    """Raises if a file would replace a folder or a device such as /dev/stdout."""
    if target.exists() and not target.is_file():
        kind = "a folder" if target.is_dir() else "not a regular file"
        raise StorageError(
            f"the file cannot be written: the path is {kind}",
            where=str(target),
            remedy="give the path of a file",
        )


def _publish(temporary: str, target: str) -> None:
    """Flushes a finished local file to disk, then makes it visible under its name,
    with the umask's permissions."""
    umask = os.umask(0)
    os.umask(umask)
    Path(temporary).chmod(0o666 & ~umask)
    with Path(temporary).open("rb") as stream:
        os.fsync(stream.fileno())
    Path(temporary).replace(target)


def _call_store(uri: str, verb: str, work: Callable[[], T]) -> T:
    """The result of work on a storage: waits during outages, and explains errors."""
    with explain_errors(uri, verb):
        return wait_out(uri, work) if is_remote(uri) else work()
