"""Resumable work: records what was begun, which units are finished, and that all of it is finished.

Three kinds of files in one folder, written in this order: `begun` (what the results depend on) before any unit,
a unit's file after its output, `finished` last. A later start reads them. Finished: nothing is computed. Begun with
the same decisions: only units without a file are computed. Other decisions: it stops and names what changed.

Sections of a corpus, the reference of DPO, sweeps and evaluations all work in this way; each names its own files.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.base.decisions import changes
from ctllm_ray.base.errors import StorageError, VersionConflict


@dataclass(frozen=True)
class ResumableFolder:
    """The files of one piece of resumable work below `uri`. `unit` is a path
    with {} for the name of a unit."""

    uri: str
    begun: str
    finished: str = ""
    unit: str = ""

    def read_begun(self) -> Any:
        """The decisions at the beginning; None if the work has not begun."""
        return _read_if_there(storage.join(self.uri, self.begun))

    def begin(self, decisions: Any) -> None:
        """Writes the decisions that the results depend on, as plain values."""
        storage.write_json(storage.join(self.uri, self.begun), decisions)

    def forget(self) -> None:
        """Removes the first file, so that the next start may use other decisions."""
        storage.remove(storage.join(self.uri, self.begun))

    def check_unchanged(self, then: Any, now: Any, message: str, remedy: str) -> None:
        """Raises `VersionConflict` with one line per changed decision."""
        if lines := changes(then, now):
            raise VersionConflict("\n    ".join([f"{message}:", *lines]), where=self.uri, remedy=remedy)

    def list_units(self) -> list[str]:
        """The names of the finished units, sorted."""
        folder, _, ending = self.unit.partition("{}")
        folder = storage.join(self.uri, folder.rstrip("/"))
        if ending.startswith("/"):  # each unit has a folder of its own
            return [name for name in storage.list_folders(folder) if storage.exists(self.locate_unit(name))]
        names = storage.list_names(folder)
        return [
            name.removesuffix(ending) for name in names if name.endswith(ending) and not name.startswith(".")
        ]

    def locate_unit(self, name: str) -> str:
        """The URI of a unit's file."""
        return storage.join(self.uri, self.unit.format(name))

    def read_unit(self, name: str) -> Any:
        """The content of a finished unit. Raises `StorageError` if the file is damaged."""
        return storage.read_json(self.locate_unit(name))

    def write_unit(self, name: str, content: Any) -> None:
        """Writes a unit's file in one step, after its output. The unit is never computed again."""
        storage.write_json(self.locate_unit(name), content, indent=None)

    def require_units(self, names: Collection[str]) -> None:
        """Raises `StorageError` if units that workers computed are missing: then the
        nodes do not share the disk."""
        missing = sorted(set(names) - set(self.list_units()))
        if missing:
            raise StorageError(
                f"{len(missing)} of {len(names)} units were computed, but their files are "
                f"not visible here; the first is {missing[0]}",
                where=self.uri,
                remedy="set root to a place that all nodes share: s3://, gs:// or a network file system",
            )

    def is_finished(self) -> bool:
        """True if all work is finished."""
        return storage.exists(storage.join(self.uri, self.finished))

    def read_finished(self) -> Any:
        """The content of the last file; None if the work is not finished."""
        return _read_if_there(storage.join(self.uri, self.finished))

    def finish(self, content: Any) -> None:
        """Writes the last file."""
        storage.write_json(storage.join(self.uri, self.finished), content)


def _read_if_there(uri: str) -> Any:
    return storage.read_json(uri) if storage.exists(uri) else None
