"""Common code of all conversation sources: turns in one form, checked, stored as the JSON text of a document.

    [{"role": "user", "content": "..."}, {"role": "assistant", "content": "...", "weight": 0}, ...]
    {"prompt": [...], "chosen": [...], "rejected": [...]}

Conversations are documents: their JSON is the text of RAW, so splits, resume, rejects, `ctllm why` and the
report know nothing new, and the tokens section renders them (corpus/encoding/encode_conversations.py).
Contents are kept as they are, byte by byte.

A conversation is an optional system turn, then user and assistant turns in alternation, ending with the
assistant. Malformed records are errors, which count against `data.max_error_share`: error.missing_field,
error.wrong_type, error.unknown_role. Well-formed records that cannot be trained on are rejects:
conversation.empty_answer, .empty_question, .role_order, .no_answer (the last user turn has none), .tool_call
(the chat template does not support tools), .not_text (images), .reasoning (thoughts outside the answer, which
the template does not support), .unwanted (a thumb down: only KTO trains on it), .weight (other than 0 and 1),
pair.identical (chosen and rejected), pair.no_common_prompt, .unread_field (a `history` or `input` next to
complete turns). corpus/readers/conversation_fields.py explains fields next to the text. An empty system turn
is left out.

`weight: 0` (OpenAI), `loss: false` (ms-swift) or `train: false` (axolotl) at an answer say that it is context
and not to be learnt: the turn then has `weight: 0` here, and the tokens section counts it among no answers. A
conversation without any answer to learn is the reject conversation.nothing_to_learn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import orjson

from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import conversation_fields, json_lines
from ctllm_ray.corpus.readers.conversation_fields import Unfit
from ctllm_ray.corpus.readers.json_lines import type_of
from ctllm_ray.corpus.readers.records import Record

Turn = dict[
    str, Any
]  # role: system, user or assistant; content; weight 0 for an answer that is not trained on

#: Other names of the three roles. Tool roles are listed to tell them from mistakes.
ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "model": "assistant",
    "function_call": "tool", "function": "tool", "tool": "tool", "tool_call": "tool", "tool_response": "tool",
    "observation": "tool", "tool_calls": "tool", "tool_use": "tool", "tool_result": "tool", "ipython": "tool",
}  # fmt: skip
#: Types of content parts: OpenAI's Chat and Responses APIs.
TEXT_PARTS = ("text", "input_text", "output_text")


def records(split: Split, read: Callable[[dict[str, Any]], Any]) -> Iterator[Record]:
    """The records of a split of JSON lines. `read` returns the turns or the pair of
    a line, or raises `Unfit`."""
    return json_lines.records(split, partial(_record, read))


def _record(
    read: Callable[[dict[str, Any]], Any], position: int, line: bytes, fields: dict[str, Any]
) -> Record:
    try:
        value = read(fields)
        try:
            return Record(position, orjson.dumps(value).decode())
        except TypeError:  # half of a surrogate pair
            return Record(position, json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    except Unfit as unfit:
        return Record(position, title=unfit.reason, raw=line, reject=unfit.kind)


def check_turns(turns: Sequence[Turn]) -> list[Turn]:
    """The turns of a complete conversation, without an empty system turn. Raises `Unfit`."""
    result = _drop_empty_system(turns)
    spoken = result[1:] if result and result[0]["role"] == "system" else result
    for number, turn in enumerate(spoken):
        wanted = ("user", "assistant")[number % 2]
        if turn["role"] != wanted:
            reason = f"turn {number + 1} is by the {turn['role']}, but the {wanted} is next"
            raise Unfit("conversation.role_order", reason)
        if not turn["content"].strip():
            kind = "empty_answer" if wanted == "assistant" else "empty_question"
            raise Unfit(f"conversation.{kind}", f"turn {number + 1} is empty")
    if len(spoken) % 2 or not spoken:
        raise Unfit("conversation.no_answer", "the conversation ends before the assistant answers")
    if all(turn.get("weight") == 0 for turn in spoken[1::2]):
        raise Unfit("conversation.nothing_to_learn", "every answer has weight 0")
    return result


def _drop_empty_system(turns: Sequence[Turn]) -> list[Turn]:
    if turns and turns[0]["role"] == "system" and not turns[0]["content"].strip():
        return list(turns[1:])
    return list(turns)


def pair(prompt: Sequence[Turn], chosen: Sequence[Turn], rejected: Sequence[Turn]) -> dict[str, list[Turn]]:
    """A preference pair whose sides are both complete conversations. Raises `Unfit`."""
    prompt = [
        {name: turn[name] for name in ("role", "content")} for turn in prompt
    ]  # prompts are not trained on
    if any("weight" in turn for turn in (*chosen, *rejected)):
        raise Unfit("conversation.weight", "an answer of the pair has weight 0, but both answers are needed")
    sides = [check_turns([*prompt, *side])[-len(side) :] if side else [] for side in (chosen, rejected)]
    if not all(sides):
        raise Unfit("conversation.no_answer", "one answer is empty")
    if sides[0] == sides[1]:
        raise Unfit("pair.identical", "the chosen and the rejected answer are equal")
    return {"prompt": _drop_empty_system(prompt), "chosen": sides[0], "rejected": sides[1]}


def turns(value: Any, field: str, role: str = "role", content: str = "content") -> list[Turn]:
    """The turns in a list of objects; `role` and `content` name their fields. Raises `Unfit`."""
    if type(value) is not list:
        raise Unfit("error.wrong_type", f"field {field!r} is not an array but {type_of(value)}")
    return [_turn(item, field, role, content) for item in value]


def _turn(item: Any, field: str, role: str, content: str) -> Turn:
    if type(item) is not dict:
        raise Unfit("error.wrong_type", f"a turn of {field!r} is not an object but {type_of(item)}")
    if type(item.get(role)) is not str:
        raise Unfit(
            "error.missing_field",
            f"a turn of {field!r} has no {role!r}; its fields are {', '.join(list(item)[:20])}",
        )
    known = ROLES.get(item[role].strip().lower())
    if known == "tool" or item.get("tool_calls") or item.get("function_call"):
        raise Unfit("conversation.tool_call", "the chat template does not support tools")
    if known is None:
        raise Unfit("error.unknown_role", f"unknown role {item[role]!r}; use one of {', '.join(ROLES)}")
    conversation_fields.check_turn(item, field)
    if content not in item:
        raise Unfit(
            "error.missing_field",
            f"a turn of {field!r} has no {content!r}; its fields are {', '.join([*item][:20])}",
        )
    turn = {"role": known, "content": text(item[content], content)}
    return turn | {"weight": 0} if known == "assistant" and not conversation_fields.is_learnt(item) else turn


def text(value: Any, field: str) -> str:
    """A text; null counts as empty. Text parts, as in OpenAI's API, are joined. Raises `Unfit`."""
    if type(value) is list and all(type(part) is dict for part in value):
        if any(part.get("type") not in TEXT_PARTS for part in value):
            raise Unfit("conversation.not_text", f"{field!r} contains parts that are not text")
        return "".join(text(part.get("text"), field) for part in value)
    if value is not None and type(value) is not str:
        raise Unfit("error.wrong_type", f"field {field!r} is not a string but {type_of(value)}")
    return value or ""


def require_field(fields: dict[str, Any], name: str) -> Any:
    """A field's value. Raises `Unfit` if it is missing."""
    if fields.get(name) is None:
        raise Unfit(
            "error.missing_field",
            f"the record has no field {name!r}; its fields are {', '.join(list(fields)[:20])}",
        )
    return fields[name]


def with_system(value: Any, turns: Sequence[Turn]) -> list[Turn]:
    """The turns after a separate system prompt, unless they begin with the same. Raises `Unfit`."""
    first = make_turn("system", text(value, "system"))
    if not first["content"].strip() or list(turns[:1]) == [first]:
        return list(turns)
    return [first, *turns]


def history(value: Any) -> list[Turn]:
    """The turns of [[question, answer], ...], as in alpaca files. Raises `Unfit`."""
    result: list[Turn] = []
    if value is not None and type(value) is not list:
        raise Unfit("error.wrong_type", f"field 'history' is not an array but {type_of(value)}")
    for exchange in value or []:
        if type(exchange) is not list or len(exchange) != 2:
            raise Unfit("error.wrong_type", "an exchange of 'history' is not [question, answer]")
        result += [
            make_turn("user", text(exchange[0], "history")),
            make_turn("assistant", text(exchange[1], "history")),
        ]
    return result


def question(instruction: str, more: str) -> str:
    """The instruction and, after a newline, the input if any, as LLaMA-Factory joins them."""
    return "\n".join(part for part in (instruction, more) if part.strip())


def make_turn(role: str, content: str) -> Turn:
    """A turn."""
    return {"role": role, "content": content}
