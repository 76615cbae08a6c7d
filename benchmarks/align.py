"""From nothing to an assistant with a preference: base -> SFT -> DPO on real data, two Ray workers under
DeepSpeed.

    python benchmarks/align.py --data DATA --root ROOT --seeds 1 2 3

DATA holds `text/wiki.jsonl.zst`, `text/english.jsonl.zst`, `sft/alpaca_zh.jsonl.zst`,
`sft/alpaca_en.jsonl.zst`, `preference/pairs_zh_en.jsonl.zst` and
`preference/hh_rlhf_harmless_test.jsonl.zst`.

One base model (the size `tiny`, 4,096 pieces) is trained on texts. For each seed it is taught to answer and
then to prefer; the seed decides the order of the data and which pairs are held out, a sixth of them. In the
DPO run of the first seed a worker is killed in mid-run. Sections and runs that are finished are only read, so
a script that was cut off goes on where it was.

What is told of each seed: on held-out pairs, how often reference and model give the chosen answer the higher
probability, and how often the model prefers the chosen answer more than its reference does.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BASE, SFT, DPO = "align-base", "align-sft", "align-dpo"
WIDTH = 512  # positions of a sequence
PAIR_WIDTH = 1024  # both sides of a pair stand in one row
WORKERS = {"workers": 2, "threads": 1, "stepper": "deepspeed", "zero_stage": 2, "checkpoint_s": 15}


def plain(
    data: Path, root: Path, name: str, seed: int, inputs: Sequence[dict[str, str]], **parts: Any
) -> dict:
    """What the recipes of all stages share."""
    found = [{**part, "path": str(data / part["path"])} for part in inputs]
    return {
        "name": name, "version": str(seed), "seed": seed, "root": str(root), "stages": [],
        "data": {"inputs": found, "max_error_share": 0.02},
        "resources": {"workers": 2, "train": WORKERS | {"micro_sequences": 8}},
    } | parts  # fmt: skip


def train(
    use: str, tokens: int, rate: float, batch: int, width: int, shares: dict[str, float], **options: Any
) -> dict:
    """The part `train` of a recipe."""
    return {
        "objective": {"use": use} | options, "tokens": tokens, "batch_tokens": batch,
        "sequence_tokens": width,
        "packing": "best_fit", "document_attention": True, "mixture": [{"shares": shares}], "max_epochs": 20,
        "block_sequences": 32, "precision": "fp32",
        "validation": {"every_tokens": tokens, "max_tokens": 50_000},
        "schedule": {"use": "cosine", "peak_rate": rate, "warmup_tokens": tokens // 10},
    }  # fmt: skip


def base(data: Path, root: Path, tokens: int) -> dict:
    """Chinese and English texts, the tokenizer, and the model that all seeds begin with."""
    inputs = [
        {"use": "jsonl", "path": "text/wiki.jsonl.zst", "name": "wiki"},
        {"use": "jsonl", "path": "text/english.jsonl.zst", "name": "english"},
    ]
    return plain(
        data, root, BASE, 1, inputs,
        tokenizer={"vocab_size": 4096, "sample_mb": 2}, tokens={"held_out_share": 0.02},
        model={"use": "tiny", "context_tokens": PAIR_WIDTH},
        train=train("pretrain", tokens, 3e-3, 16 * WIDTH, WIDTH, {"wiki": 0.6, "english": 0.4}),
    )  # fmt: skip


def sft(data: Path, root: Path, tokens: int, seed: int) -> dict:
    """Instructions in both languages."""
    inputs = [
        {"use": "messages", "path": "sft/alpaca_zh.jsonl.zst", "name": "zh"},
        {"use": "messages", "path": "sft/alpaca_en.jsonl.zst", "name": "en"},
    ]
    return plain(
        data, root, SFT, seed, inputs,
        tokenizer={"path": f"root:{BASE}/1/tokenizer"},
        tokens={"held_out_share": 0.02, "conversations": {"max_tokens": WIDTH, "too_long": "reject"}},
        model={"path": f"root:{BASE}/1/export"},
        train=train("sft", tokens, 1e-3, 16 * WIDTH, WIDTH, {"zh": 0.5, "en": 0.5}),
    )  # fmt: skip


def dpo(data: Path, root: Path, tokens: int, seed: int) -> dict:
    """Pairs in both languages."""
    inputs = [
        {"use": "preference", "path": "preference/pairs_zh_en.jsonl.zst", "name": "mixed"},
        {"use": "preference", "path": "preference/hh_rlhf_harmless_test.jsonl.zst", "name": "harmless"},
    ]
    return plain(
        data, root, DPO, seed, inputs,
        tokenizer={"path": f"root:{BASE}/1/tokenizer"},
        tokens={"held_out_share": 1 / 6, "conversations": {"max_tokens": PAIR_WIDTH, "too_long": "reject"}},
        model={"path": f"root:{SFT}/{seed}/export"},
        train=train("dpo", tokens, 3e-4, 8 * PAIR_WIDTH, PAIR_WIDTH, {"mixed": 0.35, "harmless": 0.65}, beta=0.1),
    )  # fmt: skip


def stage(recipe_plain: dict, kill: bool = False) -> Any:
    """A recipe from its inputs to an exported model; `kill` ends one worker when the first checkpoint
    stands."""
    from ctllm_ray.base import recipe as recipes
    from ctllm_ray.corpus import pipeline
    from ctllm_ray.train.checkpoint.export import export_checkpoint
    from ctllm_ray.train.ray import launch

    of, began = recipes.parse_recipe(recipe_plain), time.perf_counter()
    pipeline.prepare(of)
    if kill:
        _kill_one(of)
    state = launch.run_training(of, lambda text: print("   ", text, flush=True))
    export_checkpoint(of, precision="fp32")
    print(f"{of.name} {of.version}: step {state.step}, {time.perf_counter() - began:.0f} s", flush=True)
    return of


def _kill_one(of: Any) -> None:
    """A thread that kills a training worker of this machine once, when the run has its first checkpoint."""
    import psutil

    from ctllm_ray.train.checkpoint import checkpoint

    if checkpoint.steps(of.folder("train")):
        return

    def watch() -> None:
        while not checkpoint.steps(of.folder("train")):
            time.sleep(0.05)
        children = psutil.Process().children(recursive=True)
        workers = [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]
        if workers:
            workers[-1].kill()
            print("    killed a worker", flush=True)

    threading.Thread(target=watch, daemon=True).start()


def told(of: Any) -> dict[str, float]:
    """All held-out pairs of a run together: accuracies, weighted by pairs."""
    from ctllm_ray.train import records

    groups = records.read_validation_last(of.folder("train"))["groups"]
    pairs = sum(facts["pairs"] for facts in groups.values())
    names = ("accuracy", "preferred_share", "reference_preferred_share", "margin")
    return {"pairs": pairs} | {n: sum(f[n] * f["pairs"] for f in groups.values()) / pairs for n in names}


def lives(of: Any) -> str:
    """How often a run was begun and resumed."""
    from ctllm_ray.train import records

    kinds = [event.kind for event in records.read_events(of.folder("train"))]
    return f"started {kinds.count('started')}, resumed {kinds.count('resumed')}"


def main() -> None:
    """All stages, then the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--base-tokens", type=int, default=262_144)
    parser.add_argument("--sft-tokens", type=int, default=131_072)
    parser.add_argument("--dpo-tokens", type=int, default=327_680)
    given = parser.parse_args()
    import ray

    ray.init(
        address="local", num_cpus=2, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.getcwd()}},
    )  # fmt: skip
    stage(base(given.data, given.root, given.base_tokens))
    found: dict[int, dict[str, float]] = {}
    for seed in given.seeds:
        stage(sft(given.data, given.root, given.sft_tokens, seed))
        of = stage(dpo(given.data, given.root, given.dpo_tokens, seed), kill=seed == given.seeds[0])
        found[seed] = told(of)
        print(json.dumps({"seed": seed, "lives": lives(of)} | found[seed]), flush=True)
    print(
        "seed  held-out pairs  reference prefers chosen  model prefers chosen  more than its reference  "
        "margin, nats"
    )
    for seed, facts in found.items():
        print(
            f"{seed:4d}{facts['pairs']:16.0f}{facts['reference_preferred_share']:26.1%}"
            f"{facts['preferred_share']:22.1%}{facts['accuracy']:25.1%}{facts['margin']:14.3f}"
        )


if __name__ == "__main__":
    main()
