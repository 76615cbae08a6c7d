"""DATA.json: the shards of a run, and the batch from which each of them counts.

An append-only list of generations. The first holds what the run began with; a corpus that is appended to the
recipe makes one more, from the batch where the run stands. The order of the data is a function of this file
and the recipe, so it is written before the first batch of a generation is drawn and never changed after. A
run that branches from another begins with the other's generations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, StorageError, VersionConflict
from ctllm_ray.shards.manifest import Manifest, Shard
from ctllm_ray.shards.tokens import TRAIN

DATA = "DATA.json"
RESTORE = "restore it from a backup: it defines the order of the data"


@dataclass(frozen=True)
class Corpus:
    """The training shards of one token section."""

    folder: str
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class DataGeneration:
    """The shards that joined at a batch."""

    from_batch: int
    corpora: tuple[Corpus, ...]


@dataclass(frozen=True)
class Branch:
    """Where a run left another one: the batch, and its rows of each group at
    that point; empty if it did not."""

    batch: int = 0
    begun: dict[str, int] = field(default_factory=dict)  # consumed rows
    joined: dict[str, list[list[int]]] = field(
        default_factory=dict
    )  # [position in the order, rows from there on]
    generations: int = 0  # number of generations of the other run


@dataclass(frozen=True)
class Origin:
    """The data state that a run takes from the run it branches from."""

    branch: Branch
    generations: tuple[DataGeneration, ...] = ()


def fingerprint(generations: Sequence[DataGeneration], branch: Branch) -> str:
    """SHA-256 (hexadecimal) over all shards and the batches from which they count."""
    shards = [
        [g.from_batch, [[s.sha256, s.rows, s.tokens, s.group] for c in g.corpora for s in c.shards]]
        for g in generations
    ]
    return hashlib.sha256(json.dumps([shards, asdict(branch)], sort_keys=True).encode()).hexdigest()


def read_data(folder: str) -> Origin:
    """Reads DATA.json of a run's folder. Raises `StorageError` if it is damaged."""
    path = storage.join(folder, DATA)
    try:
        plain = storage.read_json(path)
        generations = [
            DataGeneration(
                g["from_batch"],
                tuple(Corpus(c["folder"], tuple(Shard(**s) for s in c["shards"])) for c in g["corpora"]),
            )
            for g in plain["generations"]
        ]
        return Origin(Branch(**plain["branch"]), tuple(generations))
    except (KeyError, TypeError) as error:
        raise StorageError(
            f"the file was not written by ctllm, or is damaged: {error}", where=path, remedy=RESTORE
        ) from None
    except StorageError as error:
        raise StorageError(error.what, where=path, remedy=RESTORE) from None


def write_data(folder: str, origin: Origin) -> None:
    """Writes DATA.json of a run's folder in one step."""
    plain = {
        "generations": [asdict(generation) for generation in origin.generations],
        "branch": asdict(origin.branch),
    }
    storage.write_json(storage.join(folder, DATA), plain)


def join_generations(
    known: list[DataGeneration], sections: dict[str, Manifest], batch: int
) -> list[DataGeneration]:
    """The known generations with their current folders, and one more for new shards."""
    present = {
        folder: training for folder, section in sections.items() if (training := section.of_kind(TRAIN))
    }
    if not present:
        raise InputError(
            "there are no documents to train on",
            where=", ".join(sections),
            remedy="lower tokens.held_out_share",
        )
    old: dict[str, list[Shard]] = {}
    for corpus in (corpus for generation in known for corpus in generation.corpora):
        old.setdefault(corpus.folder, []).extend(corpus.shards)
    if len(old) > len(present):
        raise _explain_reordered(list(old)[len(present)])
    moved = {}
    for (before, shards), (now, training) in zip(old.items(), present.items(), strict=False):
        _check_shards(before, shards, now, training)
        moved[before] = now
    generations = [
        DataGeneration(g.from_batch, tuple(Corpus(moved[c.folder], c.shards) for c in g.corpora))
        for g in known
    ]
    taken = {(moved[folder], shard.path) for folder, shards in old.items() for shard in shards}
    rest = {f: tuple(s for s in training if (f, s.path) not in taken) for f, training in present.items()}
    if any(rest.values()):
        start = max([batch, *(g.from_batch for g in known)]) if known else batch
        generations.append(
            DataGeneration(start, tuple(Corpus(f, shards) for f, shards in rest.items() if shards))
        )
    return generations


def _check_shards(before: str, shards: Sequence[Shard], now: str, training: Sequence[Shard]) -> None:
    """Raises unless every known shard of a corpus is still in the section at the
    same position of the list."""
    present = {shard.path: shard.sha256 for shard in training}
    for shard in shards:
        if present.get(shard.path) == shard.sha256:
            continue
        if before != now:
            raise _explain_reordered(before)
        uri = storage.join(now, shard.path)
        state = "changed" if shard.path in present else "was removed"
        remedy = "restore it, or start a new run with another `train.run`"
        raise InputError(f"a shard has {state} since this run began", where=uri, remedy=remedy)


def _explain_reordered(folder: str) -> VersionConflict:
    return VersionConflict(
        "a corpus of this run was removed from the list, or moved in it", where=folder,
        remedy="only append to train.corpora, or start a new run with another `train.run`",
    )  # fmt: skip
