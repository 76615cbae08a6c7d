"""MANIFEST.json of a section: the completion marker, counts and provenance in one file that is written last.

A section without a manifest is not finished; readers open only the shards that a manifest lists. It holds no
time and no host name, so that two runs of one recipe over one input have the same bytes: how long it took
stands in RUNS.jsonl.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.base.errors import CtllmError, NotFound, StorageError
from ctllm_ray.base.resumable import ResumableFolder

PLAN = "PLAN.json"
MANIFEST = "MANIFEST.json"
RUNS = "RUNS.jsonl"


@dataclass(frozen=True)
class Shard:
    """One Arrow IPC file. `path` is relative to the section's
    folder; `text_bytes` is UTF-8 before compression."""

    path: str
    rows: int
    bytes: int
    text_bytes: int
    sha256: str
    tokens: int = 0  # of a token shard, including BOS and EOS
    group: str = ""  # of a token shard: the source or label of all its documents


@dataclass(frozen=True)
class Manifest:
    """The manifest of a finished section."""

    section: str
    name: str
    version: str
    fingerprint: str
    recipe: dict[str, Any]
    inputs: list[
        dict[str, Any]
    ]  # of each file read: input, name, bytes, and more (corpus/engine/input_files.py)
    counts: dict[str, int]  # in, kept, reject:<rule>, skipped.<why>
    shards: list[Shard]
    provenance: dict[str, str]

    def rejects(self) -> dict[str, int]:
        """Rejected documents by rule, largest count first."""
        results = {k.removeprefix("reject:"): n for k, n in self.counts.items() if k.startswith("reject:")}
        return dict(sorted(results.items(), key=lambda item: (-item[1], item[0])))

    def count_skipped(self) -> dict[str, int]:
        """Records of archives that are no documents, by kind."""
        return {k: n for k, n in self.counts.items() if k.startswith("skipped.")}

    @property
    def documents(self) -> int:
        """Records that were read as documents: all but the skipped ones."""
        return self.counts["in"] - sum(self.count_skipped().values())

    def of_kind(self, kind: str) -> list[Shard]:
        """The shards of one kind, in order: `kept` or `rejected` of a clean section,
        `train` or `held_out` of tokens."""
        return [s for s in self.shards if s.path.startswith(f"{kind}/")]

    def paths(self, kind: str) -> list[str]:
        """Paths of the shards of a kind, relative to the section's folder, in order."""
        return [s.path for s in self.of_kind(kind)]

    def digest(self, kind: str) -> str:
        """SHA-256 (hexadecimal) over the hashes of the shards of a kind. Equal digests mean equal shards."""
        return hashlib.sha256("".join(s.sha256 for s in self.of_kind(kind)).encode()).hexdigest()


def check_counts(counts: Mapping[str, int], where: str) -> None:
    """Checks that `in == kept + rejects + skipped`. Raises `CtllmError`: a violation is a bug of this program."""
    out = counts["kept"] + sum(n for key, n in counts.items() if key.startswith(("reject:", "skipped.")))
    if counts["in"] != out:
        raise CtllmError(
            f"{counts['in']} records went in and {out} came out",
            where=where,
            remedy="this is a bug: report it",
        )


def section_files(folder: str, unit: str = "splits/{}.json") -> ResumableFolder:
    """The plan, the units and the manifest of a section."""
    return ResumableFolder(folder, begun=PLAN, finished=MANIFEST, unit=unit)


def is_finished(folder: str) -> bool:
    """True if the section in this folder has its manifest."""
    return section_files(folder).is_finished()


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Writes the manifest of a section. This marks the section as finished."""
    check_counts(manifest.counts, folder)
    section_files(folder).finish(asdict(manifest))


def read_manifest(folder: str) -> Manifest:
    """Reads the manifest of a finished section. Raises `NotFound` if the section is not finished."""
    plain = section_files(folder).read_finished()
    if plain is None:
        raise NotFound(
            "this section has not finished",
            where=folder,
            remedy="run `ctllm prepare` with the same recipe and root",
        )
    try:
        return Manifest(**plain | {"shards": [Shard(**s) for s in plain["shards"]]})
    except (KeyError, TypeError) as error:
        raise StorageError(
            f"the manifest is damaged, or another program wrote it: {error}",
            where=storage.join(folder, MANIFEST),
            remedy="restore the file, or delete the section's folder and run `ctllm prepare` again",
        ) from None
