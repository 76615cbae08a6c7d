"""Packing loses no target and trains none twice, whatever the lengths."""

from __future__ import annotations

import numpy as np
import pytest

from ctllm_ray.base import resolve
from ctllm_ray.base.errors import InputError
from ctllm_ray.shards.packers.best_fit import BestFit
from ctllm_ray.shards.packers.concatenate import Concatenated, fills_of_total
from ctllm_ray.shards.packing import Packing
from ctllm_ray.shards.paired_packing import Paired

NAMES = resolve.names(resolve.PACKERS)
PACKERS = [resolve.resolve(resolve.PACKERS, name) for name in NAMES]


def test_a_pair_may_fill_a_row_and_not_be_longer() -> None:
    full = Paired(np.array([10, 6, 3, 3]), 16, 0)
    assert full.fills.targets.tolist() == [16, 6]
    with pytest.raises(InputError, match="has 17 targets; a row holds 16"):
        Paired(np.array([10, 7]), 16, 0)


LENGTHS = {
    "none": [],
    "one": [1],
    "one that fills a row": [16],
    "one of many rows": [1000],
    "only BOS": [0, 0, 0],
    "some with BOS alone": [0, 5, 0, 16, 0, 0, 33, 0],
    "all equal": [7] * 40,
    "one less, equal, one more than a row": [15, 16, 17] * 9,
    "every length": list(range(70)),
}
MIXED = np.random.default_rng(1).lognormal(3, 1.2, 3000).astype(np.int64) + 1


def seen(packing: Packing, documents: int) -> list[list[int]]:
    """The targets of each document in the order of rows; the fill of each row is checked on the way."""
    found: list[list[int]] = [[] for _ in range(documents)]
    fills = np.repeat(packing.fills.targets, np.diff(packing.fills.ends, prepend=0))
    for row in range(packing.fills.rows):
        pieces = packing.pieces(row)
        assert pieces.counts.sum() == fills[row]
        assert pieces.counts.min() > 0
        for document, begin, count in zip(pieces.documents, pieces.begins, pieces.counts, strict=True):
            found[document].extend(range(begin, begin + count))
    return found


@pytest.mark.parametrize("packer", PACKERS, ids=NAMES)
@pytest.mark.parametrize("name", LENGTHS)
def test_every_target_of_every_document_stands_in_exactly_one_row(name: str, packer: type) -> None:
    targets = np.array(LENGTHS[name], np.int64)
    packing = packer(targets, 16, 5)
    found = seen(packing, len(targets))
    assert [sorted(positions) for positions in found] == [list(range(1, n + 1)) for n in targets]
    assert packing.fills.total == targets.sum()


@pytest.mark.parametrize("packer", PACKERS, ids=NAMES)
@pytest.mark.parametrize("width", [1, 2, 31, 32, 33, 512, 100_000])
def test_targets_are_conserved_at_any_width(width: int, packer: type) -> None:
    packing = packer(MIXED, width, 5)
    found = seen(packing, len(MIXED))
    assert [sorted(positions) for positions in found] == [list(range(1, n + 1)) for n in MIXED]
    assert packing.fills.total == MIXED.sum()
    assert packing.fills.targets.max() <= width


def test_concatenation_pads_the_last_row_only_and_is_known_without_the_documents() -> None:
    packing = Concatenated(MIXED, 64, 5)
    fills = fills_of_total(int(MIXED.sum()), 64)
    assert (fills.rows, fills.total) == (-(-int(MIXED.sum()) // 64), MIXED.sum())
    assert np.array_equal(packing.fills.ends, fills.ends)
    assert fills.targets[0] == 64
    assert fills.ends[0] >= fills.rows - 1


def test_concatenation_by_hand() -> None:
    """In any order of documents of 5, 3 and 4 targets the rows of 6 hold 6 and 6."""
    packing = Concatenated(np.array([5, 3, 4]), 6, 0)
    stretches = [
        [(int(d), int(b), int(c)) for d, b, c in zip(p.documents, p.begins, p.counts, strict=True)]
        for p in (packing.pieces(0), packing.pieces(1))
    ]
    first = stretches[0][0][0]
    lengths = [5, 3, 4]
    cut = stretches[0][-1]
    assert stretches[0][0] == (first, 1, lengths[first])
    assert stretches[1][0] == (cut[0], 1 + cut[2], lengths[cut[0]] - cut[2])


def test_best_fit_cuts_only_documents_longer_than_a_row() -> None:
    packing = BestFit(MIXED, 64, 5)
    pieces: list[int] = [0] * len(MIXED)
    for row in range(packing.fills.rows):
        for document in packing.pieces(row).documents:
            pieces[document] += 1
    assert pieces == (-(-MIXED // 64)).tolist()


def test_best_fit_finds_the_tightest_row() -> None:
    """7 and 6 open two rows of 10; 4 fits the one with 4 left, 3 then the one with 3: full, and one target
    too many."""
    packing = BestFit(np.array([6, 3, 7, 4, 1]), 10, 3)
    rows = [sorted(packing.pieces(row).documents.tolist()) for row in range(3)]
    assert sorted(rows[:2]) == [[0, 3], [1, 2]]
    assert rows[2] == [4]
    assert packing.fills.targets.tolist() == [10, 1]


def test_best_fit_agrees_with_the_plain_algorithm() -> None:
    """Rows of the same fills as best-fit decreasing by looking at every open row."""
    rooms: list[int] = []
    for rest in sorted((n % 100 for n in MIXED.tolist()), reverse=True):
        if rest == 0:
            continue
        fitting = [i for i, room in enumerate(rooms) if room >= rest]
        if fitting:
            rooms[min(fitting, key=lambda i: rooms[i])] -= rest
        else:
            rooms.append(100 - rest)
    expected = sorted([100] * int((MIXED // 100).sum()) + [100 - room for room in rooms], reverse=True)
    fills = BestFit(MIXED, 100, 5).fills
    assert np.repeat(fills.targets, np.diff(fills.ends, prepend=0)).tolist() == expected


@pytest.mark.parametrize("packer", PACKERS, ids=NAMES)
def test_documents_of_a_row_are_neighbours_by_the_seed_and_not_by_the_corpus(packer: type) -> None:
    targets = np.full(4000, 10)
    orders = []
    for seed in (1, 1, 2):
        packing = packer(targets, 100, seed)
        orders.append(np.concatenate([packing.pieces(row).documents for row in range(packing.fills.rows)]))
    assert np.array_equal(orders[0], orders[1])
    assert (orders[0] == orders[2]).mean() < 0.01
    assert abs(np.corrcoef(orders[0][:-1], orders[0][1:])[0, 1]) < 0.08
