"""MB/s of MinHash signatures, 128 permutations over 5-character shingles: ours, rensa, datasketch, datatrove.

One process on one core, CPU time, and the programs take turns slice by slice, so the ratios hold on a busy machine
too. MB are 10**6 bytes of UTF-8 of the text as it comes. Ours starts from Arrow columns and is shown with and without
folding and bands; the others get folded text whose shingles were cut beforehand, so that they are measured by their
own work alone: cutting a text into Python strings costs more than our whole signature. datatrove is its first stage
as FineWeb-2 sets it up for Chinese (`get_shingles` and `get_signature` of `MinhashDedupSignature`, words by jieba),
14 x 8 replaced by 16 x 8.

    RAYON_NUM_THREADS=1 PYTHONPATH=. python benchmarks/signatures.py '../shared/data/web_zh_raw/*.zst'

datasketch and rensa are development dependencies; datatrove (`pip install datatrove spacy jieba`) is skipped where it
is absent.
"""

from __future__ import annotations

import glob
import importlib.util
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zstandard

from ctllm_ray.text.bands import band_keys
from ctllm_ray.text.digests import digests
from ctllm_ray.text.fold import fold
from ctllm_ray.text.minhash import shingle_hashes, signatures

PERMUTATIONS, SHINGLE, SLICES = 128, 5, 5
LEAST_S = 0.3  # CPU time that a program spends on a slice at least
SLOW_BYTES = 400_000  # what the Python programs get of a slice


class Slice:
    """Texts in every form that a program wants, made before the clock runs."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.raw = texts, pa.array(texts)
        self.folded = fold(self.raw)
        cut = [[t[i : i + SHINGLE] for i in range(max(len(t) - SHINGLE + 1, 1))] for t in self.folded.to_pylist()]
        self.shingles = cut
        self.encoded = [[s.encode() for s in one] for one in cut]
        self.hashes = [
            shingle_hashes(np.array([ord(c) for c in t], np.uint32), SHINGLE) for t in self.folded.to_pylist()
        ]
        self.bytes = sum(len(t.encode()) for t in texts)


def ours(data: Slice) -> Any:
    return signatures(data.folded, shingle_chars=SHINGLE, permutations=PERMUTATIONS)


def folding(data: Slice) -> Any:
    return fold(data.raw)


def whole(data: Slice) -> Any:
    values = signatures(fold(data.raw), shingle_chars=SHINGLE, permutations=PERMUTATIONS).values
    return band_keys(values, bands=32, rows=4)


def exact(data: Slice) -> Any:
    return digests(data.raw)


def rensa_update(data: Slice) -> None:
    from rensa import RMinHash

    for shingles in data.shingles:
        sketch = RMinHash(num_perm=PERMUTATIONS, seed=42)
        sketch.update(shingles)
        sketch.digest()


def rensa_batch(data: Slice) -> Any:
    from rensa import RMinHash

    return RMinHash.digest_matrix_from_token_sets(data.shingles, PERMUTATIONS, 42)


def rensa_hashed(data: Slice) -> Any:
    from rensa import RMinHash

    return RMinHash.digest_matrix_from_token_hash_sets(data.hashes, PERMUTATIONS, 42)


def datasketch_batch(data: Slice) -> None:
    from datasketch import MinHash

    for shingles in data.encoded:
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
        "rensa, update": (rensa_update, small),
        "rensa, batch of token sets": (rensa_batch, small),
        "rensa, batch of hashed tokens": (rensa_hashed, small),
        "datasketch, update_batch": (datasketch_batch, small),
    }
    if importlib.util.find_spec("datatrove"):
        programs["datatrove, first stage"] = (datatrove(), small)
    else:
        print("datatrove is not installed: skipped")
    for program, data in programs.values():
        program(data[0])  # compiles, loads dictionaries
    each = [{name: measured(p, data[i]) for name, (p, data) in programs.items()} for i in range(SLICES)]
    seconds = {name: float(np.mean([one[name] for one in each])) for name in programs}
    print("| program | MB/s | ours is faster by |\n|---|---:|---:|")
    for name, s in seconds.items():
        print(f"| {name} | {1e-6 / s:.2f} | {s / seconds['ours']:.1f} |")


if __name__ == "__main__":
    main()
