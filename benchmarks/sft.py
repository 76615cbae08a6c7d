"""Tokens per second of fine-tuning on packed conversations, beside pretraining; padding does not count.

    python benchmarks/sft.py --rounds 5 --steps 12

The model, the sequences of 512 and the batches of 8 are those of train_cpu.py, and so is the way of timing:
each contender in a process of its own, in turn, ratios within a round. `pretrain` learns every token of texts
that are packed end to end and kept apart, `attending` the same without a mask; `sft` learns the answers of
conversations that are packed whole, by best fit. `filled` is the share of positions that are no padding,
`answers` the share of these that is learnt. On a machine that others use, `by CPU` is the ratio to go by:
tokens per second of the process's own CPU time. Conversations have one to three turns, with questions of 10
to 120 tokens and answers of 20 to 300 (lognormal), as Chinese Alpaca and ShareGPT files have them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from train_cpu import BATCH, SEQUENCE, VOCABULARY, WARM_UP, recipe, write_model, write_tokens

CONTENDERS = ("pretrain", "attending", "sft")
FACTS = {"tokenizer": "0" * 64, "vocab_size": str(VOCABULARY), "bos": "1", "eos": "2", "pad": "3"}


def write_conversations(folder: Path, tokens: int) -> None:
    """A token section of so many tokens."""
    from ctllm_ray.shards import manifest
    from ctllm_ray.shards import tokens as shards
    from ctllm_ray.shards.manifest import Manifest

    draw = np.random.default_rng(0)
    kind = shards.id_type(VOCABULARY)
    documents: list[np.ndarray] = []
    answers: list[np.ndarray] = []
    while sum(map(len, documents)) < tokens:
        ends = np.cumsum([1, *(turn for _ in range(draw.integers(1, 4)) for turn in _turns(draw))])
        ids = 64 + np.minimum(draw.zipf(1.2, ends[-1]), VOCABULARY - 65)
        if len(ids) <= SEQUENCE + 1:
            documents.append(ids)
            answers.append(
                ends[1:].astype(np.int32)
            )  # question, answer, question, ...: the answers lie between
    sizes = np.array([len(ids) for ids in documents], np.int32)
    names = [str(number) for number in range(len(documents))]
    table = shards.with_answers(
        shards.table(names, documents, sizes, sizes, {}, kind), answers, "conversations"
    )
    with shards.TokenShardWriter(str(folder), shards.TRAIN, "web", 0, kind, (), "conversations") as writer:
        writer.write(table)
    counts = {"in": len(documents), "kept": len(documents), "tokens": int(sizes.sum())}
    found = Manifest("tokens", "b", "1", "0" * 64, {}, [], counts, list(writer.shards), FACTS)
    manifest.write_manifest(str(folder), found)


def _turns(draw: np.random.Generator) -> tuple[int, int]:
    """Tokens of a question and of its answer."""
    return int(np.clip(draw.lognormal(3.3, 0.7), 10, 120)), int(np.clip(draw.lognormal(4.5, 0.8), 20, 300))


def contend(name: str, root: Path, steps: int, threads: int) -> dict[str, float]:
    """Tokens per second of one contender in this process, padding and all, and without."""
    import torch

    from ctllm_ray.base import recipe as recipes
    from ctllm_ray.train import session
    from ctllm_ray.train.data.batches import Batches
    from ctllm_ray.train.data.corpora import open_corpora
    from ctllm_ray.train.steppers.torch import TorchStepper

    torch.set_num_threads(threads)
    ends: list[tuple[float, float]] = []  # by the clock, and of CPU

    class Timed(TorchStepper):
        def apply(self, rate: float) -> Any:
            norm = super().apply(rate)
            ends.append((time.perf_counter(), time.process_time()))
            return norm

    plain = recipe(root, steps, f"{name}-{os.getpid()}", apart=name != "attending").model_dump()
    if name == "sft":
        plain["train"] |= {
            "objective": {"use": "sft"},
            "packing": "best_fit",
            "corpora": [str(root / "talks")],
        }
    of = recipes.parse_recipe(plain)
    batches = Batches(of, open_corpora(of))
    session.train(of, Timed)
    filled = [BATCH - batches.account(n, n + 1)["web"].padding for n in range(WARM_UP, steps)]
    seconds, cpu_s = (last - first for first, last in zip(ends[WARM_UP - 1], ends[-1], strict=True))
    answers = sum(batches.targets(n) for n in range(WARM_UP, steps)) / sum(filled)
    speeds = {"tokens_per_s": sum(filled) / seconds, "tokens_per_cpu_s": sum(filled) / cpu_s}
    return speeds | {"filled": sum(filled) / len(filled) / BATCH, "answers": answers}


def prepared(root: Path, steps: int) -> None:
    """Writes the data and the model of all contenders."""
    write_tokens(root / "b" / "1" / "tokens", BATCH * (steps + 2))
    write_conversations(root / "talks", BATCH * (steps + 2))
    write_model(root / "model")


def apart(name: str, root: str, steps: int, threads: int) -> dict[str, float]:
    """What this script prints when it is called for one contender."""
    command = [
        sys.executable,
        __file__,
        "--only",
        name,
        "--root",
        root,
        "--steps",
        str(steps),
        "--threads",
        str(threads),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Medians over rounds, and ratios to pretraining in the same round."""
    lines = [
        "contender   tokens/s (least-most)      x pretrain (least-most)   by CPU (least-most)   filled   "
        "answers"
    ]
    for name, rounds in found.items():
        speeds = [r["tokens_per_s"] for r in rounds]
        ratios = {
            key: [r[key] / b[key] for r, b in zip(rounds, found["pretrain"], strict=True)]
            for key in ("tokens_per_s", "tokens_per_cpu_s")
        }
        lines.append(
            f"{name:10s} {statistics.median(speeds):8,.0f} ({min(speeds):,.0f}-{max(speeds):,.0f})"
            + "".join(f"{statistics.median(r):14.3f} ({min(r):.3f}-{max(r):.3f})" for r in ratios.values())
            + f"{rounds[-1]['filled']:9.1%}{rounds[-1]['answers']:10.1%}"
        )
    return "\n".join(lines)


def main() -> None:
    """Rounds of all contenders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--only", help="run this one in this process and print its figures (used by the script itself)"
    )
    parser.add_argument("--root", type=Path)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(contend(given.only, given.root, given.steps, given.threads)))
        return
    with tempfile.TemporaryDirectory(prefix="sft-") as folder:
        prepared(Path(folder), given.steps)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for number in range(given.rounds):
            for name in CONTENDERS if number % 2 == 0 else reversed(CONTENDERS):
                found[name].append(apart(name, folder, given.steps, given.threads))
                print(number, name, found[name][-1], file=sys.stderr, flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
