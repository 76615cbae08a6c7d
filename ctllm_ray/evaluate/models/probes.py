"""Checks that the model behind an address has not changed: fixed prompts at the start and at every resume.

Not every server is bit-stable: what else is in a batch changes the last digits. So each time the prompts are
asked twice, one after another and all at once, which shows the server's own noise, and answers may differ by
a few times that. Another model, or the same in another precision, differs by more: fp32 and bf16 of one small
model were 0.097 nats a token apart. A change of less than `LEAST_NATS` a token is not noticed.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, VersionConflict
from ctllm_ray.evaluate.models.concurrency import Runner
from ctllm_ray.evaluate.models.model_under_test import Continuation, ModelUnderTest
from ctllm_ray.tokenizer.tokenizer import Tokenizer

FILE = "probes.json"
PROMPTS = (
    "中国的首都是北京，法国的首都是",
    "春天到了，山里的花都开了，我们一家人决定",
    "问题：小明有5个苹果，吃了2个，还剩几个？\n答案：",
    "《红楼梦》的作者是清代作家",
    "The quick brown fox jumps over the lazy dog. The capital of Japan is",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))  #",
    "水的化学式是H2O，二氧化碳的化学式是",
    "1, 1, 2, 3, 5, 8, 13,",
)
ANSWER_TOKENS = 8
#: Mean difference of a token's log-probability in nats; an estimate: a fifth of the difference between bf16
#: and fp32.
LEAST_NATS = 0.02
MOST_NOISES = 4.0  # or this many times the difference between two rounds of one server
LEAST_ALIKE = 0.5  # share of answers with the same beginning, for servers without log-probabilities


@dataclass(frozen=True)
class Answers:
    """Two rounds: log-probabilities of the prompts' tokens in nats (empty if
    unavailable), and continuations."""

    logprobs: list[list[float]]
    texts: list[list[str]]


class Probes:
    """The probes of a model behind an address."""

    def __init__(self, subject: ModelUnderTest, tokenizer: Tokenizer) -> None:
        self._subject = subject
        most = subject.context_tokens - ANSWER_TOKENS - 1
        self._ids = [tokenizer.encode([prompt])[0].tolist()[: max(2, most)] for prompt in PROMPTS]

    def write(self, folder: str, runner: Runner) -> None:
        """Sends the prompts, and stores the answers."""
        storage.write_json(storage.join(folder, FILE), asdict(runner.run(self._ask())))

    def check(self, folder: str, runner: Runner) -> None:
        """Raises `VersionConflict` if the answers differ from those stored in the folder."""
        path = storage.join(folder, FILE)
        if not storage.exists(path):
            return
        if differing := compare(Answers(**storage.read_json(path)), runner.run(self._ask())):
            raise VersionConflict(
                f"the model behind the address has changed since the evaluation began: {differing}",
                where=folder,
                remedy="give this evaluation a name: evaluate.run=NAME; or delete the folder",
            )

    async def _ask(self) -> Answers:
        logprobs: list[list[float]] = []
        try:
            one_by_one = [await self._logprobs(ids) for ids in self._ids]
            together = await asyncio.gather(*map(self._logprobs, self._ids))
            logprobs = [[each for prompt in of for each in prompt] for of in (one_by_one, together)]
        except InputError:  # it gives no log-probabilities of prompts: compare texts instead
            pass
        texts = [
            [await self._text(ids) for ids in self._ids],
            list(await asyncio.gather(*map(self._text, self._ids))),
        ]
        return Answers(logprobs, texts)

    async def _logprobs(self, ids: list[int]) -> list[float]:
        return [token.logprob for token in await self._subject.logprobs(ids, 1, ())]

    async def _text(self, ids: list[int]) -> str:
        return await self._subject.generate(ids, Continuation((), ANSWER_TOKENS))


def compare(old: Answers, new: Answers) -> str:
    """How two sets of answers differ by more than noise; empty if they do not."""
    if old.logprobs and new.logprobs:
        return _compare_logprobs(old.logprobs, new.logprobs)
    alike = max(_share_alike(one, two) for one, two in product(old.texts, new.texts))
    return "" if alike >= LEAST_ALIKE else f"{1 - alike:.0%} of the answers to fixed prompts differ"


def _compare_logprobs(old: list[list[float]], new: list[list[float]]) -> str:
    apart = min(_mean_apart(one, two) for one, two in product(old, new))
    bound = LEAST_NATS + MOST_NOISES * max(_mean_apart(*old), _mean_apart(*new))
    return (
        "" if apart <= bound else f"log-probabilities of fixed prompts differ by {apart:.2g} nats per token"
    )


def _mean_apart(one: list[float], two: list[float]) -> float:
    return float(np.abs(np.subtract(one, two)).mean()) if len(one) == len(two) else float("inf")


def _share_alike(one: list[str], two: list[str]) -> float:
    return sum(a == b for a, b in zip(one, two, strict=True)) / len(one)
