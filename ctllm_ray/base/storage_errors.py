"""What file systems and object stores raise, as one error that names the file and a remedy."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from ctllm_ray.base.errors import CtllmError, InputError, StorageError
from ctllm_ray.base.uris import is_remote

#: Packages below fsspec, whose errors have no common base.
_DRIVERS = {
    "adlfs", "aiobotocore", "aiohttp", "botocore", "gcsfs", "httpcore", "httpx", "huggingface_hub", "ossfs",
    "requests",
    "s3fs", "urllib3",
}  # fmt: skip

_REMEDIES = {
    errno.ENOSPC: "free space on that disk, then run the same command again: finished splits are kept",
    errno.EDQUOT: "raise the quota or free space, then run the same command again: finished splits are kept",
    errno.EACCES: "give this user permission, or name another path",
    errno.EPERM: "give this user permission, or name another path",
    errno.EROFS: "name a path on a writable file system",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "a part of the path is a file: name another folder",
}


def remedy_of_reading(error: Exception, otherwise: str) -> str:
    """What to do about a finished file that cannot be read; `otherwise`: where it is the file that is wrong.

    Where memory, or the number of mapped files, ran out, the file is whole: what is finished must not be
    deleted.
    """
    if getattr(error, "errno", None) == errno.ENOMEM:
        return (
            "free memory, or let processes map more files (sysctl -w vm.max_map_count=1048576), and run the "
            "same "
            "command again: the file is whole, and what is finished is kept"
        )
    return otherwise


@contextmanager
def explain_errors(uri: str, verb: str) -> Iterator[None]:
    """Turns the many exceptions of file systems and object stores into one error that names the file and a
    remedy."""
    try:
        yield
    except CtllmError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise _translate(error, uri, verb) from error
    except Exception as error:  # botocore, aiohttp, gcsfs: no common base below Exception
        if type(error).__module__.partition(".")[0] not in _DRIVERS:
            raise
        raise _translate(error, uri, verb) from error


def _translate(error: Exception, uri: str, verb: str) -> CtllmError:
    kind = StorageError if verb in {"written", "deleted"} else InputError
    number = getattr(error, "errno", None) or 0
    if isinstance(error, ImportError):
        return kind(
            f"no driver for this kind of storage: {error}", where=uri, remedy="pip install the named package"
        )
    if isinstance(error, ValueError) and "rotocol" not in str(error):
        raise error
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if number in _REMEDIES and not is_remote(uri):
        reason = os.strerror(number)  # Arrow's own words are longer
    if number == errno.ENOSPC and is_remote(uri):
        reason = f"{os.strerror(number)} in {tempfile.gettempdir()}, where it is written first"
    if reason in uri:  # s3fs says no more than the path
        reason = "there is no such file"
    remote = "check the path, the credentials and the endpoint (AWS_ENDPOINT_URL)"
    remedy = _REMEDIES.get(number) or (remote if is_remote(uri) else "check the path")
    if isinstance(error, FileNotFoundError):
        remedy = "check the path (for an object store: that the bucket exists)"
    return kind(f"cannot be {verb}: {reason}", where=uri, remedy=remedy)
