"""CHC-Bench: a model's answers to hard Chinese questions, marked 1 to 10 by another model (Du et al. 2024).

The published form: eight classes, one turn, the single-answer prompt of MT-bench (Zheng et al. 2023) in Chinese, marks
from 1 to 10. The published items come without reference answers, and not with this package: the recipe names a file.
The prompt is pinned: its SHA-256 stands beside every score. A verdict without a mark is counted and never scored, and a
class has 20 to 37 items, so look at the intervals.

A judge is any OpenAI-compatible API. What it said is kept by judge, prompt, question and answer, written before it
counts, so that a run that was cut off asks nobody twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ctllm_ray.base.errors import EngineFailed, InputError
from ctllm_ray.base.evaluation import Judge
from ctllm_ray.base.rows import ID, Row, field_of, table
from ctllm_ray.evaluate.answered import key
from ctllm_ray.evaluate.asking import Asking
from ctllm_ray.evaluate.client import Client
from ctllm_ray.evaluate.crowd import Crowd
from ctllm_ray.evaluate.items import SCORED, TOO_LONG, UNPARSABLE, Item
from ctllm_ray.evaluate.subject import Continuation
from ctllm_ray.evaluate.task import by, chosen
from ctllm_ray.tokenizer import chat_template, specials
from ctllm_ray.tokenizer.tokenizer import Tokenizer

NAME = "chc_bench"
CLASSES = (
    "coding", "hard_case", "math", "science", "read_compre", "social", "roleplaying", "writting",
)  # fmt: skip # as published, spelling included
LEAST, MOST = 1.0, 10.0

SYSTEM = "你是一个有用的助手。"
PROMPT = """\
[指令]
请你作为一名公正的裁判，评价一个人工智能助手对下面用户问题的回答的质量。评价应考虑回答的有用性、相关性、准确性、深度、\
创造性和详细程度等因素。请先给出简短的解释，并尽可能客观。给出解释之后，你必须严格按照以下格式给回答打 1 到 10 分：\
“[[分数]]”，例如：“评分：[[5]]”。

[问题]
{question}

[助手回答开始]
{answer}
[助手回答结束]"""
PROMPT_SHA256 = hashlib.sha256(f"{SYSTEM}\n{PROMPT}".encode()).hexdigest()
_MARK = re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]")


@dataclass(frozen=True)
class Case:
    """What the judge is asked about."""

    row: Row
    answer: str


def items(wanted: Judge) -> tuple[list[Row], dict[str, str]]:
    """The items, and SHA-256 of their files by URI. Raises `InputError` for a class that CHC-Bench does not have."""
    found = table(wanted.items)
    rows = [
        {ID: row[ID], "category": str(field_of(row, "category")), "query": str(field_of(row, "query"))}
        for row in found.rows
    ]
    for row in rows:
        if row["category"] not in CLASSES:
            remedy = f"the classes are {', '.join(CLASSES)}"
            raise InputError(f"unknown class {row['category']!r}", where=row[ID], remedy=remedy)
    kept = [
        row for of_class in by(rows, lambda row: row["category"]).values() for row in chosen(of_class, wanted.limit)
    ]
    return kept, dict(found.files)


def evaluate(
    wanted: Judge, rows: Sequence[Row], asking: Asking, tokenizer: Tokenizer, client: Client, crowd: Crowd
) -> list[Item]:
    """Every item with its mark, or with the reason why it has none. `crowd` asks the judge."""
    prompts = [_prompt(tokenizer, row["query"]) for row in rows]
    answers = asking.texts([(ids, Continuation((), wanted.answer_tokens)) for ids in prompts])
    cases = [Case(row, answer) for row, answer in zip(rows, answers, strict=True) if answer is not None]

    def key_of(case: Case) -> str:
        return key("verdict", wanted.model, PROMPT_SHA256, wanted.verdict_tokens, case.row["query"], case.answer)

    async def ask(case: Case) -> str:
        said = await client.post("/chat/completions", _body(wanted, case))
        try:
            return str(said["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError):
            raise EngineFailed("the judge's answer has no message", where=client.url, remedy="ask again") from None

    crowd.ask("verdicts", cases, key_of, ask)
    said = {case.row[ID]: crowd.answered[key_of(case)] for case in cases}
    return [_item(row, answer, said.get(row[ID])) for row, answer in zip(rows, answers, strict=True)]


def mark(said: str) -> float | None:
    """The last mark that a judge gave, from 1 to 10; None where there is none or it is out of bounds."""
    found = _MARK.findall(said)
    if not found or not LEAST <= float(found[-1]) <= MOST:
        return None
    return float(found[-1])


def _body(wanted: Judge, case: Case) -> dict[str, object]:
    asked = PROMPT.format(question=case.row["query"], answer=case.answer)
    return {
        "model": wanted.model,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}],
        "temperature": 0,
        "max_tokens": wanted.verdict_tokens,
    }


def _prompt(tokenizer: Tokenizer, query: str) -> list[int]:
    """The question as a conversation where the tokenizer knows turns, else as the beginning of a text."""
    if {*chat_template.ROLES.values(), specials.END} <= tokenizer.specials.keys():
        return chat_template.prompt(tokenizer, [{"role": "user", "content": query}]).tolist()
    return [tokenizer.bos_id, *tokenizer.encode([query])[0].tolist()]


def _item(row: Row, answer: str | None, said: str | None) -> Item:
    given = mark(said) if said is not None else None
    status = TOO_LONG if answer is None else UNPARSABLE if given is None else SCORED
    return Item(
        benchmark=NAME,
        part=row["category"],
        item=row[ID],
        status=status,
        score=given,
        answer=answer or "",
        said=said or "",
        doc_hash=key(row["category"], row["query"]),
        prompt_hash=PROMPT_SHA256,
    )
