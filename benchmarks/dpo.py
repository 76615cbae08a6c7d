"""Preference pairs per second on a CPU: our DPO with cached references, and TRL's DPOTrainer; same model,
same pairs.

    python benchmarks/dpo.py --rounds 3 --steps 8

A Llama of 9.0 million parameters (6 x 256, 16,384 pieces), pairs of 100 to 1,000 tokens (prompts of 20 to
200, answers whose lengths are log-normal around 90, both sides apart), fp32, AdamW (the fused one for all),
no activation checkpointing. An update of ours is 8 rows of 1,024 tokens; TRL makes each from as many pairs as
ours hold on average.

- `ours`: `session.train` whole, from token shards and the reference's cache. What the cache costs is printed
  beside it.
- `trl-N`: DPOTrainer as it comes, a second model as the reference in each step, N pairs in a forward pass
  (padded to the longest of them), gradients accumulated over an update. Several N are tried: less padding
  against larger products.
- `trl-cached-N`: the same with `precompute_ref_log_probs`, computed before the clock starts: what remains of
  the distance is packing, and an output layer that is computed for answers only, once.

Each contender runs in a process of its own, in turn, for a number of rounds; ratios are taken within a round,
to the best N of TRL in that round. Clocks run from the end of the second update to the end of the last one;
there are two, the wall's and the processor's (all threads), which says the same on a machine that others use
too.
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

WIDTH, ROWS, VOCABULARY = 1024, 8, 16_384
WARM_UP = 2  # updates before the clock starts
RATE, BETA = 5e-6, 0.1
PAIRS = 240


def pairs() -> list[dict[str, list[int]]]:
    """Prompt and both answers as ids, the same at each call."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(PAIRS):
        lengths = [
            int(draw.integers(20, 200)),
            *np.clip(draw.lognormal(4.5, 0.6, 2), 30, 400).astype(int).tolist(),
        ]
        ids = [(64 + np.minimum(draw.zipf(1.2, length), VOCABULARY - 65)).tolist() for length in lengths]
        prompt, chosen, rejected = ids
        found.append({"prompt_ids": [1, *prompt], "chosen_ids": [*chosen, 2], "rejected_ids": [*rejected, 2]})
    return found


def write_tokens(folder: Path) -> None:
    """The pairs as a token section."""
    from ctllm_ray.shards import manifest, tokens
    from ctllm_ray.shards.manifest import Manifest

    kind, ids, answers = tokens.id_type(VOCABULARY), [], []
    for pair in pairs():
        for side in ("chosen_ids", "rejected_ids"):
            ids.append(np.array([*pair["prompt_ids"], *pair[side]]))
            answers.append(np.array([len(pair["prompt_ids"]), len(ids[-1])], np.int32))
    sizes = np.array([len(whole) for whole in ids], np.int32)
    names = [str(number // 2) for number in range(len(ids))]
    with tokens.TokenShardWriter(str(folder), tokens.TRAIN, "pairs", 0, kind, (), "pairs") as writer:
        writer.write(tokens.with_answers(tokens.table(names, ids, sizes, sizes, {}, kind), answers, "pairs"))
    facts = {"tokenizer": "0" * 64, "vocab_size": str(VOCABULARY), "bos": "1", "eos": "2", "pad": "3"}
    counts = {"in": len(ids), "kept": len(ids), "tokens": int(sizes.sum())}
    manifest.write_manifest(
        str(folder), Manifest("tokens", "b", "1", "0" * 64, {}, [], counts, list(writer.shards), facts)
    )


def write_model(folder: Path) -> None:
    """The model as a Hugging Face folder."""
    from ctllm_ray.model import folder as hugging_face
    from ctllm_ray.model import llama
    from ctllm_ray.model.config import ModelConfig

    shape = ModelConfig(6, 256, 8, 8, 32, 704, VOCABULARY, WIDTH, tied=True)
    hugging_face.save_model(llama.build(shape, 0), shape, str(folder))


def recipe(root: Path, steps: int, run: str) -> Any:
    """Our run over that section, from that model."""
    from ctllm_ray.base import recipe as recipes

    batch = WIDTH * ROWS
    plain = {
        "name": "b", "version": "1", "seed": 0, "root": str(root), "stages": [],
        "data": {"inputs": [{"use": "jsonl", "path": "nowhere/*"}], "max_error_share": 0},
        "model": {"path": str(root / "model")},
        "train": {
            "run": run, "objective": {"use": "dpo", "beta": BETA}, "tokens": batch * steps,
            "batch_tokens": batch,
            "sequence_tokens": WIDTH, "packing": "best_fit", "document_attention": True,
            "precision": "fp32", "mixture": [{"shares": {"pairs": 1.0}}], "max_epochs": 1000,
            "schedule": {"use": "wsd", "peak_rate": RATE, "warmup_tokens": 0},  # without a decay: constant
        },
        "resources": {"train": {"micro_sequences": ROWS, "checkpoint_s": 1e9}},
    }  # fmt: skip
    return recipes.parse_recipe(plain)


def per_update(root: Path, steps: int) -> list[int]:
    """Pairs of each of our updates."""
    from ctllm_ray.train.data.batches import Batches
    from ctllm_ray.train.data.corpora import look

    of = recipe(root, steps, "look")
    found = Batches(of, look(of))
    return [found.divisor(number) for number in range(steps)]


def ours(root: Path, steps: int) -> dict[str, float]:
    """Our loop from the cache."""
    from ctllm_ray.train import records, session
    from ctllm_ray.train.data import reference_log_probs
    from ctllm_ray.train.steppers.torch import TorchStepper

    ends: list[tuple[float, float]] = []

    class Timed(TorchStepper):
        def apply(self, rate: float) -> Any:
            norm = super().apply(rate)
            ends.append((time.perf_counter(), time.process_time()))
            return norm

    of = recipe(root, steps, f"run-{os.getpid()}")
    began = time.perf_counter()
    reference_log_probs.complete(of, reference_log_probs.here)  # in the first round: then it is there
    cached_s = time.perf_counter() - began
    session.train(of, Timed)
    last = records.read_steps(of.folder("train"))[-1]
    done = sum(per_update(root, steps)[WARM_UP:])
    return speeds(done, ends) | {"loss": last.loss, "cache_s": cached_s}


def speeds(pairs_done: int, ends: list[tuple[float, float]]) -> dict[str, float]:
    """Pairs for each second on the wall, and for each second of processor time, from the ends of updates."""
    wall_s, cpu_s = (after - before for before, after in zip(ends[WARM_UP - 1], ends[-1], strict=True))
    return {"pairs_per_s": pairs_done / wall_s, "pairs_per_cpu_s": pairs_done / cpu_s}


def trl(root: Path, steps: int, at_once: int, cached: bool) -> dict[str, float]:
    """TRL's trainer with nothing to log or save."""
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    ends: list[tuple[float, float]] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *given: Any, **named: Any) -> None:
            ends.append((time.perf_counter(), time.process_time()))

    update = round(statistics.mean(per_update(root, steps)))
    accumulated = max(1, round(update / at_once))
    words = Tokenizer(models.WordLevel({f"<{number}>": number for number in range(VOCABULARY)}, "<0>"))
    arguments = DPOConfig(
        str(root / "trl"), per_device_train_batch_size=at_once, gradient_accumulation_steps=accumulated,
        max_steps=steps, learning_rate=RATE, lr_scheduler_type="constant", optim="adamw_torch_fused", weight_decay=0.1,
        adam_beta2=0.95, max_grad_norm=1.0, beta=BETA, max_length=None, use_cpu=True, bf16=False,
        activation_checkpointing=False, logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    model, reference = (
        LlamaForCausalLM.from_pretrained(root / "model", dtype=torch.float32) for _ in range(2)
    )
    trainer = DPOTrainer(
        model=model, ref_model=reference, args=arguments, callbacks=[Clock()],
        train_dataset=Dataset.from_list([{"prompt": "<9>", "chosen": "<8>", "rejected": "<7>"}]),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<3>", eos_token="<2>"),
    )  # fmt: skip
    data, began = Dataset.from_list(pairs()), time.perf_counter()
    if cached:
        trainer.precompute_ref_logps = True
        trainer._precompute_model_hash = str(root)
        data = trainer._precompute_ref_logps(data, "train", at_once)
    trainer.train_dataset = data
    cached_s = time.perf_counter() - began
    done = trainer.train()
    found = speeds(at_once * accumulated * (len(ends) - WARM_UP), ends)
    return found | {"loss": float(done.training_loss), "cache_s": cached_s}


def contend(name: str, root: Path, steps: int, threads: int) -> dict[str, float]:
    """One contender, in this process."""
    import torch

    torch.set_num_threads(threads)
    if name == "ours":
        return ours(root, steps)
    return trl(root, steps, int(name.rpartition("-")[2]), cached="cached" in name)


def apart(arguments: list[str], threads: int) -> dict[str, float]:
    """What this script prints when it is called for one contender."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, __file__, *arguments], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Medians over rounds; how many times as fast as each one ours is, in the same round."""
    lines = [
        "contender        pairs/s   ours is x as fast (least-most)   by processor time   last loss   cache, s"
    ]
    for name, rounds in found.items():
        wall, cpu = (ratios(found["ours"], rounds, key) for key in ("pairs_per_s", "pairs_per_cpu_s"))
        lines.append(
            f"{name:14s} {statistics.median(r['pairs_per_s'] for r in rounds):9.2f}"
            f"{statistics.median(wall):12.2f} ({min(wall):.2f}-{max(wall):.2f})"
            f"{statistics.median(cpu):20.2f} ({min(cpu):.2f}-{max(cpu):.2f})"
            f"{rounds[-1]['loss']:12.4f}{max(r['cache_s'] for r in rounds):11.1f}"
        )
    plain = [found[name] for name in found if name.startswith("trl-") and "cached" not in name]
    for key, words in (("pairs_per_s", "on the wall"), ("pairs_per_cpu_s", "by processor time")):
        best = [{key: max(one[key] for one in of_round)} for of_round in zip(*plain, strict=True)]
        of_rounds = ratios(found["ours"], best, key)
        of = f"{statistics.median(of_rounds):.2f} ({min(of_rounds):.2f}-{max(of_rounds):.2f})"
        lines.append(f"to TRL's best of each round, {words}: {of}")
    return "\n".join(lines)


def ratios(ours: list[dict[str, float]], others: list[dict[str, float]], key: str) -> list[float]:
    """Round by round."""
    return [one[key] / other[key] for one, other in zip(ours, others, strict=True)]


def main() -> None:
    """Rounds of all contenders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--contenders", nargs="+", default=["trl-1", "trl-2", "trl-4", "trl-8", "trl-cached-2"]
    )
    parser.add_argument(
        "--only", help="run this one in this process and print its figures (used by the script itself)"
    )
    parser.add_argument("--root", type=Path, help="keep data, model and the reference's cache here")
    given = parser.parse_args()
    if given.only:
        print(json.dumps(contend(given.only, given.root, given.steps, given.threads)))
        return
    with tempfile.TemporaryDirectory(prefix="dpo-") as temporary:
        folder = str(given.root or temporary)
        if not Path(folder, "model").exists():
            write_tokens(Path(folder) / "b" / "1" / "tokens")
            write_model(Path(folder) / "model")
        names = list(dict.fromkeys(["ours", *given.contenders]))
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for number in range(given.rounds):
            for name in names if number % 2 == 0 else reversed(names):
                options = ["--only", name, "--root", folder, "--steps", str(given.steps)]
                found[name].append(apart([*options, "--threads", str(given.threads)], given.threads))
                print(number, name, found[name][-1], file=sys.stderr, flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
