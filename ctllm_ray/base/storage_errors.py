"""Converts errors of file systems and object stores to one error with the file and a remedy."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from ctllm_ray.base.errors import CtllmError, InputError, StorageError
from ctllm_ray.base.uris import is_remote

#: Packages below fsspec; their errors have no common base class.
_DRIVERS = {
    "adlfs", "aiobotocore", "aiohttp", "botocore", "gcsfs", "httpcore", "httpx", "huggingface_hub", "ossfs",
    "requests",
    "s3fs", "urllib3",
}  # fmt: skip

_REMEDIES = {
    errno.ENOSPC: "free space on that disk, then run the same command again: finished splits are kept",
    errno.EDQUOT: "raise the quota or free space, then run the same command again: finished splits are kept",
    errno.EACCES: "give this user permission, or use another path",
    errno.EPERM: "give this user permission, or use another path",
    errno.EROFS: "use a path on a writable file system",
    errno.EISDIR: "give the path of a file",
    errno.ENOTDIR: "a part of the path is a file: use another folder",
}


def remedy_of_reading(error: Exception, otherwise: str) -> str:
    """The remedy for a finished file that cannot be read. `otherwise` applies if the file itself is damaged.

    If memory or the number of mapped files ran out, the
    file is intact, and finished work must not be deleted.
    """
    if getattr(error, "errno", None) == errno.ENOMEM:
        return (
            "free memory, or allow more mapped files (sysctl -w vm.max_map_count=1048576), "
            "and run the same command again; the file is intact, and finished work is kept"
        )
    return otherwise


@contextmanager
def explain_errors(uri: str, verb: str) -> Iterator[None]:
    """Converts the many exceptions of file systems and object stores to one
    error with the file and a remedy."""
    try:
        yield
    except CtllmError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise _translate(error, uri, verb) from error
    except Exception as error:  # botocore, aiohttp, gcsfs: no common base class below Exception
        if type(error).__module__.partition(".")[0] not in _DRIVERS:
            raise
        raise _translate(error, uri, verb) from error


def _translate(error: Exception, uri: str, verb: str) -> CtllmError:
    kind = StorageError if verb in {"written", "deleted"} else InputError
    number = getattr(error, "errno", None) or 0
    if isinstance(error, ImportError):
        return kind(
            f"no driver is installed for this kind of storage: {error}",
            where=uri,
            remedy="install the named package with pip",
        )
    if isinstance(error, ValueError) and "rotocol" not in str(error):
        raise error
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if number in _REMEDIES and not is_remote(uri):
        reason = os.strerror(number)  # shorter than Arrow's own text
    if number == errno.ENOSPC and is_remote(uri):
        reason = f"{os.strerror(number)} in {tempfile.gettempdir()}, where files are written first"
    if reason in uri:  # s3fs gives only the path
        reason = "the file does not exist"
    remote = "check the path, the credentials and the endpoint (AWS_ENDPOINT_URL)"
    remedy = _REMEDIES.get(number) or (remote if is_remote(uri) else "check the path")
    if isinstance(error, FileNotFoundError):
        remedy = "check the path (for an object store: that the bucket exists)"
    return kind(f"cannot be {verb}: {reason}", where=uri, remedy=remedy)
