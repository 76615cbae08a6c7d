"""Another model marks a model's answers; classes, prompt and scale are those of a module of judges/, by `use`.

The marking model is any OpenAI-compatible API. Its verdicts are cached by judge, prompt, question and answer, and
stored before they count, so an interrupted run repeats no request. A verdict without a mark (marks.py) is
requested again, with a reminder. If it still has no mark, the item counts as not judged, and the next run of
the command requests it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ctllm_ray.base import resolve
from ctllm_ray.base.errors import EngineFailed, InputError
from ctllm_ray.base.recipe_evaluation import Judge
from ctllm_ray.benchmark_files import ID, Row, field_of, table
from ctllm_ray.evaluate.formats.chat_form import ChatForm
from ctllm_ray.evaluate.judging import marks
from ctllm_ray.evaluate.judging.judge_prompt import code_of, prompt_sha256, write_messages
from ctllm_ray.evaluate.models.answer_cache import key
from ctllm_ray.evaluate.models.batching import RequestBatching
from ctllm_ray.evaluate.models.concurrency import ConcurrentRequests
from ctllm_ray.evaluate.models.model_under_test import Continuation
from ctllm_ray.evaluate.models.openai_client import Client
from ctllm_ray.evaluate.scoring.item_results import SCORED, TOO_LONG, UNPARSABLE, Item
from ctllm_ray.evaluate.task import by, choose_rows


@dataclass(frozen=True)
class Case:
    """A question and an answer to judge."""

    row: Row
    answer: str

    @property
    def quoted_text(self) -> str:
        """The texts of others in the prompt."""
        return f"{self.row['query']}\n{self.answer}"


def load(wanted: Judge) -> Any:
    """The judge's module. Raises `RecipeError` with the existing names."""
    return resolve.load_module(resolve.JUDGES, wanted.use)


def items(wanted: Judge) -> tuple[list[Row], dict[str, str]]:
    """The items, and SHA-256 of their files by URI. Raises `InputError` for a class that the judge does not have."""
    classes = load(wanted).CLASSES
    item_table = table(wanted.items)
    rows = [
        {ID: row[ID], "category": str(field_of(row, "category")), "query": str(field_of(row, "query"))}
        for row in item_table.rows
    ]
    for row in rows:
        if row["category"] not in classes:
            remedy = f"use one of {', '.join(classes)}"
            raise InputError(f"unknown class {row['category']!r}", where=row[ID], remedy=remedy)
    kept = [
        row
        for of_class in by(rows, lambda row: row["category"]).values()
        for row in choose_rows(of_class, wanted.limit)
    ]
    return kept, dict(item_table.files)


def evaluate(
    wanted: Judge,
    rows: Sequence[Row],
    batching: RequestBatching,
    form: ChatForm,
    client: Client,
    requests: ConcurrentRequests,
) -> list[Item]:
    """Every item with its mark, or the reason why it has none. `requests` sends them to the judge."""
    answers = batching.texts(write_prompts(wanted, rows, form))
    cases = [Case(row, answer) for row, answer in zip(rows, answers, strict=True) if answer is not None]
    keys = {case.row[ID]: _key(wanted, case) for case in cases}
    for each in keys.values():
        if each in requests.answered and requests.answered[each]["mark"] is None:
            requests.answered.forget(each)

    async def ask(case: Case) -> dict[str, Any]:
        return await _ask_for_mark(wanted, client, case)

    requests.ask("verdicts", cases, lambda case: keys[case.row[ID]], ask)
    verdicts = {id_: requests.answered[each] for id_, each in keys.items()}
    return [
        _item(wanted, row, answer, verdicts.get(row[ID])) for row, answer in zip(rows, answers, strict=True)
    ]


def check_lengths(wanted: Judge, rows: Sequence[Row], batching: RequestBatching, form: ChatForm) -> None:
    """Raises `InputError` if there are no questions, or none fits the context."""
    if not rows:
        remedy = "give a file with items"
        raise InputError("there are no items to evaluate", where="evaluate.judge.items", remedy=remedy)
    if not any(
        batching.fits(len(ids) + wanted.max_tokens) for ids, wanted in write_prompts(wanted, rows, form)
    ):
        raise batching.refuse_too_long("evaluate.judge")


def write_prompts(wanted: Judge, rows: Sequence[Row], form: ChatForm) -> list[tuple[list[int], Continuation]]:
    """The prompts for the model."""
    return [(form.write_prompt(row["query"]), Continuation(form.until, wanted.answer_tokens)) for row in rows]


def _key(wanted: Judge, case: Case) -> str:
    parts = (
        wanted.model,
        prompt_sha256(load(wanted)),
        marks.GRAMMAR,
        wanted.verdict_tokens,
        case.row["query"],
        case.answer,
    )
    return key("verdict", *parts)


async def _ask_for_mark(wanted: Judge, client: Client, case: Case) -> dict[str, Any]:
    """The judge's last verdict and its mark. Without a mark, the
    request is repeated with a reminder, up to `wanted.asks` times.

    A judge that insists on a number below the scale means
    the worst mark; leaving such answers out would flatter.
    """
    code, refused, number = code_of(case.row["query"], case.answer), "", None
    for attempt in range(wanted.asks):
        said, ended = await _ask(wanted, client, case, refused, seed=attempt)
        number = marks.read_number(said, case.quoted_text, code) if ended else None
        if number is not None and marks.LEAST <= number <= marks.MOST:
            return {"said": said, "mark": number}
        refused = said or "（没有评价）"
    return {"said": refused, "mark": marks.LEAST if number is not None and number < marks.LEAST else None}


async def _ask(wanted: Judge, client: Client, case: Case, refused: str, seed: int) -> tuple[str, bool]:
    """A verdict, and whether it is complete."""
    body = {
        "model": wanted.model,
        "messages": write_messages(load(wanted), case.row["query"], case.answer, refused),
        "temperature": 0,
        "max_tokens": wanted.verdict_tokens,
    }
    came = await client.post("/chat/completions", body | ({"seed": seed} if seed else {}))
    try:
        choice = came["choices"][0]
        return str(choice["message"]["content"] or ""), choice.get("finish_reason") != "length"
    except (KeyError, IndexError, TypeError, AttributeError):
        raise EngineFailed(
            "the judge's response has no message", where=client.url, remedy="ask again"
        ) from None


def _item(wanted: Judge, row: Row, answer: str | None, verdict: dict[str, Any] | None) -> Item:
    mark = verdict["mark"] if verdict else None
    status = TOO_LONG if answer is None else UNPARSABLE if mark is None else SCORED
    return Item(
        benchmark=wanted.use,
        part=row["category"],
        item=row[ID],
        status=status,
        score=mark,
        answer=answer or "",
        said=verdict["said"] if verdict else "",
        doc_hash=key(row["category"], row["query"]),
        prompt_hash=prompt_sha256(load(wanted)),
    )
