"""The table of input files in a manifest: how much of each was read, what was lost, and why.

Of every file: `bytes`, `bytes_read`, `bytes_lost` (bytes == bytes_read + bytes_lost), and `records`. Where there is
something to tell also `unread` (records by error.<kind> and skipped.<why>), `missing` (records that never came;
`estimated` where only the bytes are known), `damage` (why bytes could not be read), `unfinished` (the file could not
be read to its end), and `repaired` (records in which something was replaced).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ctllm_ray.corpus.engine.file_account import REASONS
from ctllm_ray.corpus.engine.section import Done, unit_name
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards import manifest

InputFile = dict[str, Any]
TRUNCATED = "error.truncated"  # one such record stands at every gap


def list_input_files(splits: Sequence[Split], done: Sequence[Done]) -> list[InputFile]:
    """The files in the order of splits, with the accounts of all their parts where the section keeps any."""
    sizes = {(split.input, file.name): file.size for split in splits for file in split.files}
    files: dict[tuple[str, str], InputFile] = {
        key: {"input": key[0], "name": key[1], "bytes": size} for key, size in sizes.items()
    }
    gaps: Counter[tuple[str, str]] = Counter()
    for account in (account for item in done for account in item.files):
        key = (account["input"], account["name"])
        gaps[key] += account.get("gaps", 0)
        _add(files[key], account)
    counted = [(key, file) for key, file in files.items() if "records" in file]
    for key, file in counted:
        gaps[key] += _check_size(file)
    for name in {key[0] for key, _ in counted}:
        _estimate_missing([(gaps[key], file) for key, file in counted if key[0] == name])
    return list(files.values())


def _estimate_missing(files: Sequence[tuple[int, InputFile]]) -> None:
    """Puts an estimate of the missing records into the files of an input that do not know them, from the bytes of
    their gaps and the records that a byte of the input holds."""
    read = sum(file["bytes_read"] for _, file in files)
    density = sum(file["records"] for _, file in files) / read if read else 0
    for gap, file in files:
        count = round(gap * density) - file.get("unread", {}).get(TRUNCATED, 0)
        if "missing" not in file and count > 0:
            file |= {"missing": count, "estimated": True}


def _add(file: InputFile, account: dict[str, Any]) -> None:
    for key in ("bytes_read", "bytes_lost", "records"):
        file[key] = file.get(key, 0) + account[key]
    if "missing" in account:
        file["missing"] = file.get("missing", 0) + account["missing"]
    for key in ("unread", "repaired"):
        if key in account:
            file[key] = dict(sorted((Counter(file.get(key, {})) + Counter(account[key])).items()))
    if "unfinished" in account:
        file["unfinished"] = True
    if "damage" in account:
        file["damage"] = list(dict.fromkeys([*file.get("damage", []), *account["damage"]]))[:REASONS]


def _check_size(file: InputFile) -> int:
    """The bytes of a file that were listed and are not there any more. Says so where its size changed."""
    if not file["bytes_read"] + file["bytes_lost"]:
        file["bytes_read"] = file["bytes"]  # of a source that keeps no account
    more = file["bytes_read"] + file["bytes_lost"] - file["bytes"]
    if more:
        reason = f"its size changed by {more:+} bytes after it was listed"
        file["damage"] = [*file.get("damage", []), reason]
        file["bytes"] += max(0, more)
        file["bytes_lost"] += max(0, -more)
        file |= {"unfinished": True} if more < 0 else {}
    return max(0, -more)


def read_input_files(folder: str) -> list[InputFile]:
    """The table of a clean section; of one that is not finished, the files that were read so far."""
    if manifest.is_finished(folder):
        return manifest.read_manifest(folder).inputs
    files = manifest.section_files(folder)
    if (begun := files.read_begun()) is None:
        return []
    units = {name: Done.from_plain(files.read_unit(name)) for name in files.list_units()}
    splits = [Split.from_plain(plain) for plain in begun["splits"]]
    open_files = {split.file for split in splits if unit_name(split) not in units}
    whole = [split for split in splits if unit_name(split) in units and split.file not in open_files]
    return list_input_files(whole, [units[unit_name(split)] for split in whole])


def find_input_files(folder: str, key: str) -> list[InputFile]:
    """The files with that name, path or input/name."""
    return [
        file
        for file in read_input_files(folder)
        if key in (file["name"], f"{file['input']}/{file['name']}") or key.endswith(f"/{file['name']}")
    ]
