"""Compares what could not be read with what the recipe allows, and names the files.

Three shares are bounded: of records (those that could not be read, and those known or estimated to be missing) and
of bytes by `data.max_error_share`; of files that could not be read to their end by `data.max_unfinished_file_share`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ctllm_ray.base import storage
from ctllm_ray.base.errors import ErrorShareExceeded, InputError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.engine.input_files import InputFile
from ctllm_ray.shards.manifest import Manifest

NAMED = 10  # files in a message


def check_losses(recipe: Recipe, folder: str, finished: Manifest) -> None:
    """Raises `ErrorShareExceeded` above a bound, and `InputError` for an input whose records are no documents."""
    data, files = recipe.data, [file for file in finished.inputs if "records" in file]
    for name in dict.fromkeys(file["input"] for file in files):
        _check_documents([file for file in files if file["input"] == name])
    for what, share, bound, key in (
        (*_lost_records(finished, files), data.max_error_share, "max_error_share"),
        (*_lost_bytes(files), data.max_error_share, "max_error_share"),
        (*_unfinished_files(files), data.max_unfinished_file_share, "max_unfinished_file_share"),
    ):
        if share > bound:
            remedy = "repair the input and give the recipe another `version`; or raise "
            raise ErrorShareExceeded(
                "\n    ".join([f"{share:.2%} of {what}", *_worst(files)]),
                where=storage.join(folder, "rejected"),
                remedy=f"{remedy}data.{key} above {bound} and run again: finished splits are kept",
            )


def list_lossy(files: Sequence[InputFile]) -> list[InputFile]:
    """The files that lost something: those that could not be read to their end first, then by bytes lost."""
    lossy = [file for file in files if file.get("bytes_lost") or file.get("damage")]
    return sorted(lossy, key=lambda file: (not file.get("unfinished"), -file["bytes_lost"], file["name"]))


def describe(file: InputFile) -> str:
    """A file in words: what was lost of it, and why."""
    if "records" not in file:
        return f"{file['input']}/{file['name']}: {file['bytes']:,} bytes; an earlier version kept no account"
    parts = [f"{file['bytes_lost']:,} of {file['bytes']:,} bytes lost", f"records seen: {file['records']:,}"]
    if file.get("missing"):
        about = "about " if file.get("estimated") else ""
        parts.append(f"missing: {about}{file['missing']:,}")
    for key in ("unread", "repaired"):
        parts += [f"{kind} {n:,}" for kind, n in file.get(key, {}).items()]
    return f"{file['input']}/{file['name']}: {'; '.join([', '.join(parts), *file.get('damage', [])])}"


def _lost_records(finished: Manifest, files: Sequence[InputFile]) -> tuple[str, float]:
    errors = {rule: n for rule, n in finished.rejects().items() if rule.startswith("error.")}
    missing = sum(file.get("missing", 0) for file in files)
    total = finished.documents + missing
    kinds = [f"{kind} {n}" for kind, n in errors.items()] + [f"{missing} missing"] * bool(missing)
    share = (sum(errors.values()) + missing) / max(1, total)
    return f"{total} records could not be read ({', '.join(kinds)})", share


def _lost_bytes(files: Sequence[InputFile]) -> tuple[str, float]:
    total, lost = (sum(file[key] for file in files) for key in ("bytes", "bytes_lost"))
    return f"{total:,} bytes could not be read ({lost:,})", lost / max(1, total)


def _unfinished_files(files: Sequence[InputFile]) -> tuple[str, float]:
    count = sum(bool(file.get("unfinished")) for file in files)
    return f"{len(files)} files could not be read to their end ({count})", count / max(1, len(files))


def _worst(files: Sequence[InputFile]) -> list[str]:
    """The files that lost most, in words."""
    hit = list_lossy(files)
    more = [f"and {len(hit) - NAMED:,} more"] * (len(hit) > NAMED)
    return [describe(file) for file in hit[:NAMED]] + more


def _check_documents(files: Sequence[InputFile]) -> None:
    """Raises for an input whose files are not empty, and hold neither a document nor an error."""
    unread: Counter[str] = Counter()
    for file in files:
        unread.update(file.get("unread", {}))
    records = sum(file["records"] for file in files)
    errors = sum(n for kind, n in unread.items() if kind.startswith("error."))
    if not sum(file["bytes"] for file in files) or records > unread.total() or errors:
        return
    kinds = ", ".join(f"{kind} {n}" for kind, n in unread.most_common())
    raise InputError(
        f"no document is in the {len(files)} files of this input; of {records} records: {kinds or 'none'}",
        where=files[0]["input"],
        remedy="check `use` and the fields that it reads, or leave this input out",
    )
