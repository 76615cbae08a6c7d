"""C-Eval-shaped 5-shot evaluation by log-probabilities: our engine under lm-eval against lm-eval's own `hf`
backend.

    python benchmarks/evaluate.py --items ../shared/data/eval/cmmlu.jsonl.zst --rounds 3

Questions of CMMLU (the same form: four choices, five examples of the subject before each), a few subjects of
a few items. A model of the 25M size with random weights in fp32 and a tokenizer trained on the questions; the
time is that of lm-eval's call for all log-probabilities, tokenizing included, with all answers kept in
memory. `hf` computes the prompt once for the four letters (its `logits_cache`, on by default) and is measured
at several batch sizes first; the best one then takes turns with ours, and ratios are taken within a round.
Both must give the same answers.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.benchmark_files import table
from ctllm_ray.evaluate import harness
from ctllm_ray.evaluate.models.answer_cache import AnswerCache
from ctllm_ray.evaluate.models.batching import RequestBatching
from ctllm_ray.evaluate.models.concurrency import ConcurrentRequests, Runner, own_loop
from ctllm_ray.evaluate.models.model_under_test import EngineModel
from ctllm_ray.evaluate.tasks.cmmlu import cmmlu
from ctllm_ray.inference.torch_engine import TorchEngine
from ctllm_ray.model import folder as hugging_face
from ctllm_ray.model import llama
from ctllm_ray.model.config import SIZES
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from ctllm_ray.tokenizer.train import train

VOCABULARY, CONTEXT_TOKENS, SHOTS = 8192, 2048, 5
BATCH_SIZES = (1, 4, 8, 16, 32)


def requests(items: str, subjects: int, limit: int) -> list[Instance]:
    """What lm-eval asks of the first subjects."""
    names = tuple(sorted({str(row["subject"]) for row in table(items).rows})[:subjects])
    tasks = cmmlu(path=items, subjects=names, shots=SHOTS, limit=limit)
    found = []
    for task in tasks:
        built = harness.lm_eval_task_of(task.name, task)
        built.build_all_requests()
        found += built.instances
    return found


def write_model(items: str, folder: Path) -> SentencePiece:
    """A model and its tokenizer in a folder."""
    texts = ["\n".join(map(str, row.values())) for row in table(items).rows]
    tokenizer = SentencePiece(train(texts, VOCABULARY))
    shape = replace(SIZES["25m"], vocab_size=tokenizer.vocab_size, context_tokens=CONTEXT_TOKENS)
    hugging_face.save_model(llama.build(shape, 1), shape, str(folder), dtype=torch.float32)
    tokenizer.save(str(folder))
    return tokenizer


def timed(work: Callable[[], list[tuple[float, bool]]]) -> tuple[float, list[float]]:
    """Seconds, and log-probabilities."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, [logprob for logprob, _ in found]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", required=True)
    parser.add_argument("--subjects", type=int, default=3)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as temporary, own_loop() as loop:
        folder = Path(temporary) / "model"
        tokenizer = write_model(given.items, folder)
        asked = requests(given.items, given.subjects, given.limit)
        lengths = [len(tokenizer.encode([request.args[0]])[0]) for request in asked[::4]]
        print(
            f"{len(asked) // 4} items, prompts of {statistics.fmean(lengths):.0f} tokens, {given.threads} "
            f"threads"
        )
        hf = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1)
        serve = Serve(threads=given.threads)
        engine = TorchEngine.open(str(folder), serve)
        subject = EngineModel(engine, tokenizer, frozenset({tokenizer.eos_id}))

        def ours() -> tuple[float, list[float]]:
            with tempfile.TemporaryDirectory() as fresh:
                crowd = ConcurrentRequests(
                    Runner(loop), AnswerCache(fresh), 2 * serve.slots, lambda kind, done, total: None
                )
                lm = harness.EngineLM(RequestBatching(subject, crowd), tokenizer)
                return timed(lambda: lm.loglikelihood(asked, disable_tqdm=True))

        def theirs(batch_size: int, some: list[Instance]) -> tuple[float, list[float]]:
            hf.batch_size_per_gpu = batch_size
            return timed(lambda: hf.loglikelihood(some, disable_tqdm=True))

        part = asked[: len(asked) // given.subjects]  # one subject, enough to tell batch sizes apart
        speeds = {size: theirs(size, part)[0] for size in BATCH_SIZES}
        best = min(speeds, key=lambda size: speeds[size])
        print(
            ", ".join(f"hf batch {size}: {seconds:.2f} s" for size, seconds in speeds.items()),
            f"best: {best}",
        )
        ratios = []
        for round_ in range(given.rounds):
            (our_s, mine), (their_s, wanted) = ours(), theirs(best, asked)
            worst = max(abs(a - b) for a, b in zip(mine, wanted, strict=True))
            ratios.append(their_s / our_s)
            print(
                f"round {round_}: ours {our_s:.2f} s, hf {their_s:.2f} s, {ratios[-1]:.2f}x, {worst:.1e} "
                f"nats apart"
            )
            assert worst < 1e-3
        print(f"median {statistics.median(ratios):.2f}x of lm-eval's hf at its best batch size")
        engine.close()


if __name__ == "__main__":
    main()
