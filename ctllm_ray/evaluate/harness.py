"""Runs lm-eval's tasks on our engines: its prompts, filters and metrics, so that scores are comparable.

One class connects the two: lm-eval's requests in text become requests in ids. A text gets BOS in front, as
documents do in training. lm-eval's `hf` backend does the same with our tokenizers, and the two agree token by
token. `hf` cuts a prompt that is too long from the left; here the item is left out and counted.

lm-eval is an extra of this package: it brings pandas,
datasets and scikit-learn, and takes four seconds to import.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import datasets
from lm_eval import evaluator, utils
from lm_eval.api import task as lm_eval_task
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from tqdm import tqdm

from ctllm_ray.base.errors import InputError
from ctllm_ray.benchmark_files import ID
from ctllm_ray.evaluate.models.batching import RequestBatching, Scored
from ctllm_ray.evaluate.models.model_under_test import Continuation
from ctllm_ray.evaluate.scoring.item_results import SCORED, TOO_LONG, Item
from ctllm_ray.evaluate.task import Task
from ctllm_ray.tokenizer.tokenizer import Tokenizer

logging.getLogger("lm_eval").setLevel(logging.ERROR)
lm_eval_task.tqdm = partial(tqdm, disable=True)  # its progress bars would overwrite ours

ANSWER_TOKENS = 256  # if a task does not say; as in lm-eval's `hf`
UNLIKELY_NATS = -1e30  # for items without a score: minus infinity would make lm-eval divide by zero


class EngineLM(TemplateLM):
    """A model under evaluation as a model of lm-eval. `too_long`
    lists task and document of items beyond the context."""

    def __init__(self, batching: RequestBatching, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.too_long: set[tuple[str, int]] = set()
        self._batching, self._tokens = batching, tokenizer

    @property
    def eot_token_id(self) -> int:
        """EOS."""
        return self._tokens.eos_id

    @property
    def prefix_token_id(self) -> int:
        """BOS, before a text without context."""
        return self._tokens.bos_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text, by default with the tokenizer's own prefix.

        What it puts behind a text stays away: a text that ends is none to go on with.
        """
        front = self._tokens.prefix_ids if add_special_tokens is not False else ()
        return [*front, *self._tokens.encode([string])[0].tolist()]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """The log-probability in nats of each continuation, and whether it is greedy;
        UNLIKELY_NATS if it is too long."""
        pairs = [self._pair(*request.args) for request in requests]
        return [
            self._note_too_long(*each) for each in zip(requests, self._batching.scores(pairs), strict=True)
        ]

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if context:
            return self._encode_pair(context, continuation)
        ids = self.tok_encode(continuation, add_special_tokens=False)
        return [self.prefix_token_id], ids

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
        """Implements lm-eval's part of this class."""
        scores = self._batching.scores([(context, continuation) for _, context, continuation in requests])
        return [_plain(score) for score in scores]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-probability in nats of each text, over full-context windows without overlap."""
        windows = [list(self._windows(*request.args)) for request in requests]
        scores = iter(self._batching.scores([pair for pairs in windows for pair in pairs]))
        return [sum(_plain(next(scores))[0] for _ in pairs) for pairs in windows]

    def _windows(self, text: str) -> Iterator[tuple[list[int], list[int]]]:
        ids = self.tok_encode(text, add_special_tokens=False)
        most = self._batching.context_tokens - 2  # a window has one more token than this, and must fit
        for window in utils.get_rolling_token_windows(ids, self.prefix_token_id, most, 1):
            yield utils.make_disjoint_window(window)

    def fits(self, request: Instance) -> bool:
        """True if the request fits the context."""
        if request.request_type == "generate_until":
            tokens = len(self.tok_encode(request.args[0])) + _continuation(request.args[1]).max_tokens
        elif request.request_type == "loglikelihood":
            tokens = sum(map(len, self._pair(*request.args)))
        else:  # in windows
            return True
        return self._batching.fits(tokens)

    def refuse_too_long(self, benchmark: str) -> InputError:
        """The error for a benchmark without any item that fits the context."""
        return self._batching.refuse_too_long(benchmark)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The generated text after each context; empty if the context is too long."""
        prompts = [(self.tok_encode(request.args[0]), _continuation(request.args[1])) for request in requests]
        texts = self._batching.texts(prompts)
        for request, text in zip(requests, texts, strict=True):
            if text is None:
                self.too_long.add((request.task_name, request.doc_id))
        return [text or "" for text in texts]

    def _note_too_long(self, request: Instance, score: Scored | None) -> tuple[float, bool]:
        if score is None:
            self.too_long.add((request.task_name, request.doc_id))
        return _plain(score)


def _plain(score: Scored | None) -> tuple[float, bool]:
    return (score.logprob, score.greedy) if score else (UNLIKELY_NATS, False)


def _continuation(keywords: Mapping[str, Any]) -> Continuation:
    """Converts lm-eval's generation keywords."""
    kwargs = normalize_gen_kwargs(dict(keywords), ANSWER_TOKENS)
    until = handle_stop_sequences(kwargs.pop("until", None), eos=None)
    sampled, temperature = kwargs.pop("do_sample", False), float(kwargs.pop("temperature", 0.0))
    wanted = Continuation(
        tuple(stop for stop in until if stop),
        kwargs.pop("max_gen_toks"),
        temperature if sampled else 0.0,
        float(kwargs.pop("top_p", 1.0)),
        int(kwargs.pop("seed", 0)),
    )
    if kwargs:
        remedy = "supported: until, max_gen_toks, do_sample, temperature, top_p and seed"
        raise InputError(f"unsupported generation keywords: {', '.join(kwargs)}", remedy=remedy)
    return wanted


def evaluate(benchmarks: Mapping[str, Sequence[Task]], lm: EngineLM) -> list[Item]:
    """Every item of each benchmark's tasks, scored or with the reason why not."""
    tasks = {f"{name}/{task.name}": (name, task) for name, parts in benchmarks.items() for task in parts}
    built = {key: lm_eval_task_of(key, task) for key, (_, task) in tasks.items() if task.items}
    result = evaluator.evaluate(lm, {"tasks": built, "groups": {}}, bootstrap_iters=0, log_samples=True)
    samples = result["samples"]
    items = [
        item
        for key, (name, task) in tasks.items()
        for item in _items(name, task, samples.get(key, ()), {doc for of, doc in lm.too_long if of == key})
    ]
    left_out = [
        Item(name, task.name, each.item, each.status, None, said=each.why)
        for name, task in tasks.values()
        for each in task.left_out
    ]
    return items + left_out


def check_lengths(benchmarks: Mapping[str, Sequence[Task]], lm: EngineLM) -> None:
    """Raises `InputError` if no item of a benchmark fits the context. Sends no request.

    Prompts take long to build, so the shortest row of each task is tried first: if
    it fits, the check is done.
    """
    for name, tasks in benchmarks.items():
        nonempty = [task for task in tasks if task.items]
        shortest = (
            replace(task, items=[min(task.items, key=lambda row: len(str(row)))]) for task in nonempty
        )
        if not any(_fits(lm, name, task) for task in shortest) and not any(
            _fits(lm, name, task) for task in nonempty
        ):
            raise lm.refuse_too_long(f"evaluate.tasks.{name}")


def _fits(lm: EngineLM, name: str, task: Task) -> bool:
    """True if an item of the task fits the context, with all its choices."""
    built = lm_eval_task_of(f"{name}/{task.name}", task)
    built.build_all_requests()
    too_long = {request.doc_id for request in built.instances if not lm.fits(request)}
    return len(too_long) < len(task.items)


def lm_eval_task_of(key: str, task: Task) -> lm_eval_task.ConfigurableTask:
    """The lm-eval task over the rows that were read."""
    data = {"items": datasets.Dataset.from_list(list(task.items))}
    if task.shots:
        data["shots"] = datasets.Dataset.from_list(list(task.shots))
    config = {
        **task.config,
        "task": key,
        "metadata": None,  # lm-eval would pass it to the function below
        "custom_dataset": lambda: data,
        "test_split": "items",
        "num_fewshot": len(task.shots),
        **({"fewshot_split": "shots", "fewshot_config": {"sampler": "first_n"}} if task.shots else {}),
    }
    return lm_eval_task.ConfigurableTask(config=config)


def _items(name: str, task: Task, samples: Sequence[Mapping[str, Any]], too_long: set[int]) -> Iterator[Item]:
    """The items of a task. lm-eval gives one sample per filter; one filter has the score."""
    metric, _, wanted = task.measure.partition(",")
    for sample in samples:
        if wanted and sample["filter"] != wanted:
            continue
        fits = sample["doc_id"] not in too_long
        choices = task.config["output_type"] == "multiple_choice"
        yield Item(
            benchmark=name,
            part=task.name,
            item=sample["doc"][ID],
            status=SCORED if fits else TOO_LONG,
            score=_score(task, sample, metric) if fits else None,
            chance=_chance(sample) if choices else 0.0,
            target=str(sample["target"]),
            answer=_answer(task, sample) if fits else "",
            logprobs=[score[0] for score in sample["filtered_resps"]] if choices and fits else [],
            doc_hash=sample["doc_hash"],
            prompt_hash=sample["prompt_hash"],
            lm_eval=float(sample[metric]) if fits and task.grade else None,
        )


def _chance(sample: Mapping[str, Any]) -> float:
    return 1 / len(sample["arguments"])


def _score(task: Task, sample: Mapping[str, Any], metric: str) -> float:
    return float(task.grade(sample["doc"], sample["resps"][0][0]) if task.grade else sample[metric])


def _answer(task: Task, sample: Mapping[str, Any]) -> str:
    """The index of the scored choice, or the generated text."""
    if task.config["output_type"] != "multiple_choice":
        return str(sample["resps"][0][0])
    logprobs = [score[0] for score in sample["filtered_resps"]]
    if task.measure == "acc_norm":  # per character, like lm-eval
        lengths = [len(choice) for choice in sample["doc"][task.config["doc_to_choice"]]]
        logprobs = [logprob / length for logprob, length in zip(logprobs, lengths, strict=True)]
    return str(logprobs.index(max(logprobs)))
