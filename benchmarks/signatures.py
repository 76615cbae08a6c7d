"""MB/s of MinHash signatures, 128 permutations over 5-character shingles: ours, rensa, datasketch, datatrove.

One process on one core, CPU time, and the programs take turns slice by slice, so the ratios hold on a busy
machine too. MB are 10**6 bytes of UTF-8 of the text as it comes. Ours starts from an Arrow column of folded
texts; the others get the same texts, once as strings (their user has to cut shingles in Python, which costs
most of it) and once with all shingles cut before the clock starts. datatrove is its first stage as FineWeb-2
sets it up for Chinese (`get_shingles` and `get_signature` of `MinhashDedupSignature`, words by jieba), with
16 x 8 hashes in place of 14 x 8.

    RAYON_NUM_THREADS=1 PYTHONPATH=. python benchmarks/signatures.py '../shared/data/web_zh_raw/*.zst'

datasketch and rensa are development dependencies; datatrove (`pip install datatrove spacy jieba`) is skipped
where it is absent.
"""

from __future__ import annotations

import glob
import importlib.util
import io
import json
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zstandard

from ctllm_ray.text.dedup.bands import band_keys
from ctllm_ray.text.dedup.digests import digests
from ctllm_ray.text.dedup.fold import fold
from ctllm_ray.text.dedup.minhash import signatures

PERMUTATIONS, SHINGLE, SLICES = 128, 5, 5
LEAST_S = 0.3  # CPU time that a program spends on a slice at least
SLOW_BYTES = 400_000  # what the Python programs get of a slice


def _cut(text: str) -> list[str]:
    return [text[i : i + SHINGLE] for i in range(max(len(text) - SHINGLE + 1, 1))]


class Slice:
    """Texts in every form that a program wants; the lists of shingles are made when a program is first
    tried."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.raw = texts, pa.array(texts)
        self.folded = fold(self.raw)
        self.bytes = sum(len(t.encode()) for t in texts)

    @cached_property
    def shingles(self) -> list[list[str]]:
        return [_cut(text) for text in self.folded.to_pylist()]

    @cached_property
    def encoded(self) -> list[list[bytes]]:
        return [[shingle.encode() for shingle in one] for one in self.shingles]


def ours(data: Slice) -> Any:
    return signatures(data.folded, shingle_chars=SHINGLE, permutations=PERMUTATIONS)


def folding(data: Slice) -> Any:
    return fold(data.raw)


def whole(data: Slice) -> Any:
    values = signatures(fold(data.raw), shingle_chars=SHINGLE, permutations=PERMUTATIONS).values
    return band_keys(values, bands=32, rows=4)


def exact(data: Slice) -> Any:
    return digests(data.raw)


def rensa_text(data: Slice) -> None:
    _rensa([_cut(text) for text in data.folded.to_pylist()])


def rensa_update(data: Slice) -> None:
    _rensa(data.shingles)


def _rensa(documents: list[list[str]]) -> None:
    from rensa import RMinHash

    for shingles in documents:
        sketch = RMinHash(num_perm=PERMUTATIONS, seed=42)
        sketch.update(shingles)
        sketch.digest()


def rensa_batch(data: Slice) -> Any:
    from rensa import RMinHash

    return RMinHash.digest_matrix_from_token_sets(data.shingles, PERMUTATIONS, 42)


def datasketch_text(data: Slice) -> None:
    _datasketch([[shingle.encode() for shingle in _cut(text)] for text in data.folded.to_pylist()])


def datasketch_batch(data: Slice) -> None:
    _datasketch(data.encoded)


def _datasketch(documents: list[list[bytes]]) -> None:
    from datasketch import MinHash

    for shingles in documents:
        MinHash(num_perm=PERMUTATIONS).update_batch(shingles)


def datatrove() -> Callable[[Slice], None]:
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    stage: Any = MinhashDedupSignature(
        "/tmp", MinhashConfig(n_grams=5, num_buckets=16, hashes_per_bucket=8), language="cmn_Hani"
    )

    def run(data: Slice) -> None:
        for text in data.texts:
            shingles = stage.get_shingles(text)
            if shingles.size:
                stage.get_signature(shingles)

    return run


def slices(pattern: str) -> list[Slice]:
    """Slices of pages at even distances over all files."""
    texts = []
    for path in sorted(glob.glob(pattern)):
        with Path(path).open("rb") as packed:
            stream = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(packed), "utf-8")
            texts += [text for line in stream if (text := json.loads(line).get("raw_content"))]
    return [Slice(_some(texts[i::SLICES], 10 * SLOW_BYTES)) for i in range(SLICES)]


def _some(texts: list[str], size: int) -> list[str]:
    """Texts from the start, of about `size` bytes."""
    taken: list[str] = []
    total = 0
    while total < size:
        taken.append(texts[len(taken)])
        total += len(taken[-1].encode())
    return taken


def measured(program: Callable[[Slice], Any], data: Slice) -> float:
    """CPU seconds a byte; the slice again and again until they are long enough to measure."""
    start, runs = time.process_time(), 0
    while not runs or time.process_time() - start < LEAST_S:
        program(data)
        runs += 1
    return (time.process_time() - start) / runs / data.bytes


def main() -> None:
    large = slices(sys.argv[1])
    small = [Slice(_some(data.texts, SLOW_BYTES)) for data in large]
    programs: dict[str, tuple[Callable[[Slice], Any], list[Slice]]] = {
        "ours": (ours, large),
        "ours: folding alone": (folding, large),
        "ours: folding, signatures, 32 x 4 bands": (whole, large),
        "ours: digests (xxh3_128)": (exact, large),
        "rensa, from text to signature": (rensa_text, small),
        "rensa, update with shingles cut before": (rensa_update, small),
        "rensa, batch with shingles cut before": (rensa_batch, small),
        "datasketch, from text to signature": (datasketch_text, small),
        "datasketch, update_batch with shingles cut before": (datasketch_batch, small),
    }
    if importlib.util.find_spec("datatrove"):
        programs["datatrove, first stage"] = (datatrove(), small)
    else:
        print("datatrove is not installed: skipped")
    for program, data in programs.values():
        for one in data:
            program(one)  # compiles, loads dictionaries, cuts shingles
    each = [{name: measured(p, data[i]) for name, (p, data) in programs.items()} for i in range(SLICES)]
    seconds = {name: float(np.mean([one[name] for one in each])) for name in programs}
    print("| program | MB/s | ours is faster by |\n|---|---:|---:|")
    for name, s in seconds.items():
        print(f"| {name} | {1e-6 / s:.2f} | {s / seconds['ours']:.1f} |")


if __name__ == "__main__":
    main()
