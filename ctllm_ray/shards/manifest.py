"""MANIFEST.json: the completion marker of a section, its counts and where it came from, in one file written
last.

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
    """One Arrow IPC file: `path` is below the section's folder, `text_bytes` is UTF-8 before compression."""

    path: str
    rows: int
    bytes: int
    text_bytes: int
    sha256: str
    tokens: int = 0  # of a token shard, BOS and EOS included
    group: str = ""  # of a token shard: the source or label that all its documents share


@dataclass(frozen=True)
class Manifest:
    """What a finished section says of itself."""

    section: str
    name: str
    version: str
    fingerprint: str
    recipe: dict[str, Any]
    inputs: list[dict[str, Any]]  # {"input", "name", "bytes"} of each file read
    counts: dict[str, int]  # in, kept, reject:<rule>
    shards: list[Shard]
    provenance: dict[str, str]

    def rejects(self) -> dict[str, int]:
        """Rejected documents by rule, most first."""
        results = {k.removeprefix("reject:"): n for k, n in self.counts.items() if k.startswith("reject:")}
        return dict(sorted(results.items(), key=lambda item: (-item[1], item[0])))

    def of_kind(self, kind: str) -> list[Shard]:
        """The `kept` or the `rejected` shards of a clean section, `train` or `held_out` of tokens; in
        order."""
        return [s for s in self.shards if s.path.startswith(f"{kind}/")]

    def paths(self, kind: str) -> list[str]:
        """Paths of the shards of a kind, below the section's folder, in order."""
        return [s.path for s in self.of_kind(kind)]

    def digest(self, kind: str) -> str:
        """SHA-256 over the hashes of the shards of a kind, hexadecimal: the same only where all of them
        are."""
        return hashlib.sha256("".join(s.sha256 for s in self.of_kind(kind)).encode()).hexdigest()


def check_counts(counts: Mapping[str, int], where: str) -> None:
    """Holds the law `in == kept + rejects`. Raises `CtllmError`: it would be a fault of this program."""
    out = counts["kept"] + sum(n for key, n in counts.items() if key.startswith("reject:"))
    if counts["in"] != out:
        raise CtllmError(
            f"{counts['in']} documents went in and {out} came out",
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
    """Writes the manifest of a section: from here on the section is finished."""
    check_counts(manifest.counts, folder)
    section_files(folder).finish(asdict(manifest))


def read_manifest(folder: str) -> Manifest:
    """The manifest of a finished section. Raises `NotFound` where the section is not finished."""
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
            f"not a manifest of this program: {error}",
            where=storage.join(folder, MANIFEST),
            remedy="restore the file",
        ) from None
