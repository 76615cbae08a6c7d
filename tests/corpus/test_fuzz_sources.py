"""Damaged files of every source and packing, from fixed seeds: benchmarks/fuzz_sources.py runs thousands."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fuzz_sources import fuzz


def test_damage_neither_crashes_a_source_nor_breaks_the_account_nor_takes_sound_records(
    tmp_path: Path,
) -> None:
    table, failures = fuzz(282, 0, tmp_path)  # six files of each source and packing
    assert failures == []
    whole = {name: row for name, row in table.items() if not name.startswith("parquet")}  # its offsets shift
    sound = sum(row.sound for row in whole.values())
    assert sound > 1000
    assert sum(row.survived for row in whole.values()) > 0.95 * sound
