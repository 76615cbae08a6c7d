"""Tokens per second on a CPU: our loop, a bare PyTorch loop, Hugging Face Trainer, DeepSpeed; same model,
same tokens.

    python benchmarks/train_cpu.py --rounds 5 --steps 12

A Llama of 9.0 million parameters (6 x 256, 16,384 pieces), sequences of 512, batches of 8, AdamW (the fused
one for all), clipping, fp32. Each contender runs in a process of its own, in turn, for a number of rounds, so
that a machine that slows down slows all of them; ratios are taken within a round. Clocks run from the end of
the second step to the end of the last one: loading, building and saving are outside. What the bare loop does
is the least that training can be: tensors that lie ready in memory, forward, loss, backward, clip, update, no
record of anything.

`ours` is `session.train` whole: token shards, order, packing, records, agreement. `documents` keeps documents
apart (the others attend across them). `share of loader` is what the training thread waited for data.
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

SEQUENCE, SEQUENCES, VOCABULARY = 512, 8, 16_384
BATCH = SEQUENCE * SEQUENCES
WARM_UP = 2  # steps before the clock starts
RATE = 3e-4
CONTENDERS = ("bare", "ours", "documents", "trainer", "deepspeed")


def write_tokens(folder: Path, tokens: int) -> None:
    """A token section of documents of 50 to 2,000 tokens with Zipf-distributed ids."""
    from ctllm_ray.shards import manifest
    from ctllm_ray.shards import tokens as shards
    from ctllm_ray.shards.manifest import Manifest

    draw = np.random.default_rng(0)
    kind = shards.id_type(VOCABULARY)
    documents: list[np.ndarray] = []
    while sum(map(len, documents)) < tokens:
        content = 64 + np.minimum(draw.zipf(1.2, draw.integers(50, 2000)), VOCABULARY - 65)
        documents.append(np.concatenate([[1], content, [2]]))
    sizes = np.array([len(ids) for ids in documents], np.int32)
    names = [str(number) for number in range(len(documents))]
    with shards.TokenShardWriter(str(folder), shards.TRAIN, "web", 0, kind, ()) as writer:
        writer.write(shards.table(names, documents, sizes, sizes, {}, kind))
    counts = {"in": len(documents), "kept": len(documents), "tokens": int(sizes.sum())}
    facts = {"tokenizer": "0" * 64, "vocab_size": str(VOCABULARY), "bos": "1", "eos": "2", "pad": "3"}
    manifest.write_manifest(
        str(folder), Manifest("tokens", "b", "1", "0" * 64, {}, [], counts, list(writer.shards), facts)
    )


def write_model(folder: Path) -> None:
    """The model as a Hugging Face folder."""
    from ctllm_ray.model import folder as hugging_face
    from ctllm_ray.model import llama
    from ctllm_ray.model.config import ModelConfig

    shape = ModelConfig(6, 256, 8, 8, 32, 704, VOCABULARY, SEQUENCE, tied=True)
    hugging_face.save_model(llama.build(shape, 0), shape, str(folder))


def recipe(root: Path, steps: int, run: str, **changed: Any) -> Any:
    """Our run over that section, from that model."""
    from ctllm_ray.base import recipe as recipes

    plain = {
        "name": "b", "version": "1", "seed": 0, "root": str(root), "stages": [],
        "data": {"inputs": [{"use": "jsonl", "path": "nowhere/*"}], "max_error_share": 0},
        "model": {"path": str(root / "model")},
        "train": {
            "run": run, "objective": {"use": "pretrain"}, "tokens": BATCH * steps, "batch_tokens": BATCH,
            "sequence_tokens": SEQUENCE, "packing": "concatenate",
            "document_attention": changed.get("apart", False),
            "precision": "fp32", "mixture": [{"shares": {"web": 1.0}}], "max_epochs": 1000,
            "schedule": {"use": "wsd", "peak_rate": RATE, "warmup_tokens": 0},  # without a decay: constant
        },
        "resources": {"train": {"micro_sequences": SEQUENCES, "checkpoint_s": changed.get("checkpoint_s", 1e9)}},
    }  # fmt: skip
    return recipes.parse_recipe(plain)


def ours(root: Path, steps: int, apart: bool, deepspeed: bool) -> dict[str, float]:
    """Our loop, with the plain stepper or DeepSpeed's (ZeRO 1, one worker)."""
    from ctllm_ray.train import records, session
    from ctllm_ray.train.steppers.torch import TorchStepper

    kind: Any = TorchStepper
    if deepspeed:
        from ctllm_ray.train.steppers.deepspeed import DeepSpeedStepper as kind  # type: ignore[no-redef]
    ends: list[float] = []

    class Timed(kind):
        def apply(self, rate: float) -> Any:
            norm = super().apply(rate)
            ends.append(time.perf_counter())
            return norm

    of = recipe(root, steps, f"run-{os.getpid()}", apart=apart)
    session.train(of, Timed)
    found = records.read_steps(of.folder("train"))[WARM_UP:]
    waited = sum(r.wait_s for r in found) / sum(r.seconds for r in found)
    return {"tokens_per_s": speed(ends), "loader_share": waited, "loss": found[-1].loss}


def speed(ends: list[float]) -> float:
    """Tokens per second from the ends of steps."""
    return BATCH * (len(ends) - WARM_UP) / (ends[-1] - ends[WARM_UP - 1])


def batches(root: Path, steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same inputs and labels as our run takes, made before the clock starts."""
    from ctllm_ray.train.data.batches import Batches
    from ctllm_ray.train.data.corpora import open_corpora

    of = recipe(root, steps, "batches")
    found = Batches(of, open_corpora(of))
    return [(b.input_ids, b.labels) for b in (found.batch(n, 0, SEQUENCES) for n in range(steps))]


def bare(root: Path, steps: int) -> dict[str, float]:
    """The least loop there is."""
    import torch
    from transformers import LlamaForCausalLM

    ready = [
        (torch.from_numpy(ids), torch.from_numpy(labels).flatten()) for ids, labels in batches(root, steps)
    ]
    model = LlamaForCausalLM.from_pretrained(root / "model", dtype=torch.float32).train()
    adam = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ends: list[float] = []
    for ids, labels in ready:
        logits = model(input_ids=ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        ends.append(time.perf_counter())
    return {"tokens_per_s": speed(ends), "loss": float(loss.detach())}


def trainer(root: Path, steps: int) -> dict[str, float]:
    """Hugging Face Trainer, with nothing to log or save."""
    import torch
    from transformers import LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    # The model shifts labels by itself, so it gets its inputs as labels: one target a row fewer than the
    # others have.
    rows = [
        {"input_ids": ids, "labels": ids}
        for batch, _ in batches(root, steps)
        for ids in torch.from_numpy(batch)
    ]
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *given: Any, **named: Any) -> None:
            ends.append(time.perf_counter())

    arguments = TrainingArguments(
        str(root / "trainer"), per_device_train_batch_size=SEQUENCES, max_steps=steps, learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused", weight_decay=0.1, adam_beta2=0.95, max_grad_norm=1.0, use_cpu=True,
        logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    model = LlamaForCausalLM.from_pretrained(root / "model", dtype=torch.float32)
    done = Trainer(model, arguments, train_dataset=rows, callbacks=[Clock()]).train()
    return {"tokens_per_s": speed(ends), "loss": float(done.training_loss)}


def contend(name: str, root: Path, steps: int, threads: int) -> dict[str, float]:
    """One contender, in this process."""
    import torch

    torch.set_num_threads(threads)
    if name in ("bare", "trainer"):
        return {"bare": bare, "trainer": trainer}[name](root, steps)
    return ours(root, steps, apart=name == "documents", deepspeed=name == "deepspeed")


def prepared(root: Path, steps: int) -> None:
    """Writes the data and the model of all contenders."""
    write_tokens(root / "b" / "1" / "tokens", BATCH * (steps + 2))
    write_model(root / "model")


def apart(arguments: list[str], threads: int) -> dict[str, float]:
    """What this script prints when it is called for one contender."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Medians over rounds, and ratios to the bare loop of the same round."""
    lines = ["contender   tokens/s (least-most)      x bare (least-most)     share of loader   last loss"]
    for name, rounds in found.items():
        speeds = [r["tokens_per_s"] for r in rounds]
        ratios = [r["tokens_per_s"] / b["tokens_per_s"] for r, b in zip(rounds, found["bare"], strict=True)]
        loader = [r["loader_share"] for r in rounds if "loader_share" in r]
        lines.append(
            f"{name:10s} {statistics.median(speeds):8,.0f} ({min(speeds):,.0f}-{max(speeds):,.0f})"
            f"{statistics.median(ratios):12.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
            + (f"{statistics.median(loader):18.2%}" if loader else " " * 18)
            + f"{rounds[-1]['loss']:12.4f}"
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
    parser.add_argument("--contenders", nargs="+", default=CONTENDERS, choices=CONTENDERS)
    parser.add_argument(
        "--only", help="run this one in this process and print its figures (used by the script itself)"
    )
    parser.add_argument("--root", type=Path)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(contend(given.only, given.root, given.steps, given.threads)))
        return
    with tempfile.TemporaryDirectory(prefix="train-cpu-") as folder:
        prepared(Path(folder), given.steps)
        names = list(dict.fromkeys(["bare", *given.contenders]))
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for number in range(given.rounds):
            for name in names if number % 2 == 0 else reversed(names):
                options = ["--only", name, "--root", folder, "--steps", str(given.steps)]
                found[name].append(apart([*options, "--threads", str(given.threads)], given.threads))
                print(number, name, found[name][-1], file=sys.stderr, flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
