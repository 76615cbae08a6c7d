r"""Preference pairs: JSON lines with `chosen` and `rejected`, two answers to one prompt.

The answers are strings, turns, or lists of turns, which may begin with the prompt or its end. The prompt is a
string (and the `input` behind it, as in alpaca files), a list of turns or a transcript, after `history` and
`system` where these are there. Without a prompt the answers are whole conversations, as lists of turns or as
HH-RLHF's transcripts (`\n\nHuman: ...\n\nAssistant: ...`): what both begin with, up to a question, is the
prompt then. What is rejected and why: corpus/readers/conversations.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from ctllm_ray.base.storage import File
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import conversation_fields, conversations, json_lines
from ctllm_ray.corpus.readers.conversations import Turn, Unfit, make_turn, text
from ctllm_ray.corpus.readers.records import tables

FORMS = ("pairs",)
INPUT = "input"  # the input of an instruction, as in alpaca files

#: Speakers in a transcript of HH-RLHF.
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


class _Fields(NamedTuple):
    prompt: str
    chosen: str
    rejected: str
    history: str
    system: str
    role: str
    content: str

    def pair(self, fields: dict[str, Any]) -> dict[str, list[Turn]]:
        """The pair of a line. Raises `Unfit`."""
        sides = [conversations.require_field(fields, name) for name in (self.chosen, self.rejected)]
        conversation_fields.check_record(fields, *self)
        if fields.get(self.prompt) is None:
            conversation_fields.refuse(fields, self.history, INPUT)
            system = fields.get(self.system)
            chosen, rejected = (
                conversations.with_system(system, self._whole(side, name))
                for side, name in zip(sides, (self.chosen, self.rejected), strict=True)
            )
            shared = _count_shared(chosen, rejected)
            return conversations.pair(chosen[:shared], chosen[shared:], rejected[shared:])
        prompt = self._prompt(fields)
        answers = [
            self._answer(side, name) for side, name in zip(sides, (self.chosen, self.rejected), strict=True)
        ]
        repeated = _count_repeated(prompt, answers)
        return conversations.pair(prompt, *(answer[repeated:] for answer in answers))

    def _prompt(self, fields: dict[str, Any]) -> list[Turn]:
        before = conversations.history(fields.get(self.history))
        return conversations.with_system(fields.get(self.system), [*before, *self._read_prompt(fields)])

    def _read_prompt(self, fields: dict[str, Any]) -> list[Turn]:
        """The prompt without the fields next to it."""
        value, more = fields[self.prompt], text(fields.get(INPUT), INPUT)
        if type(value) is str and not _SPEAKER.match(value):
            return [make_turn("user", conversations.question(value, more))]
        if more.strip():
            raise Unfit(
                "error.wrong_type", f"{INPUT!r} next to a prompt with turns: it is unclear where it belongs"
            )
        turns_before = self._whole(value, self.prompt)
        is_cue = turns_before[-1:] == [
            make_turn("assistant", "")
        ]  # a transcript ends with it to ask for the answer
        return turns_before[:-1] if is_cue else turns_before

    def _turns(self, value: Any, field: str) -> list[Turn]:
        return conversations.turns(value, field, self.role, self.content)

    def _answer(self, value: Any, field: str) -> list[Turn]:
        """An answer given as a string, a turn, or turns."""
        if type(value) is str and not _SPEAKER.match(value):
            return [make_turn("assistant", value)]
        return self._whole([value] if type(value) is dict else value, field)

    def _whole(self, value: Any, field: str) -> list[Turn]:
        """A conversation from its first question on."""
        return _transcript(value) if type(value) is str else self._turns(value, field)


def _transcript(value: str) -> list[Turn]:
    before, *parts = _SPEAKER.split(value)
    if before.strip() or not parts:
        raise Unfit(
            "error.missing_field",
            "there is no prompt, and the answers are not transcripts that begin with 'Human:'",
        )
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        make_turn(roles[who], content.strip()) for who, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def _count_repeated(prompt: list[Turn], answers: list[list[Turn]]) -> int:
    """The number of final prompt turns (possibly all) with which both answers begin."""
    lengths = range(len(prompt), 0, -1)
    return next((n for n in lengths if all(answer[:n] == prompt[-n:] for answer in answers)), 0)


def _count_shared(chosen: list[Turn], rejected: list[Turn]) -> int:
    """The number of turns that both sides share, up to a question. Raises `Unfit` if there are none."""
    same = [a == b for a, b in zip(chosen, rejected, strict=False)]
    most = same.index(False) if False in same else len(same)
    shared = next((n for n in range(most, 0, -1) if chosen[n - 1]["role"] == "user"), 0)
    if not shared:
        raise Unfit("pair.no_common_prompt", "the two conversations begin with different questions")
    return shared


def spans(file: File, split_bytes: int) -> list[tuple[int, int | None]]:
    """Spans of a file in unpacked bytes."""
    return json_lines.spans(file, split_bytes)


def preference(
    split: Split,
    *,
    prompt: str = "prompt",
    chosen: str = "chosen",
    rejected: str = "rejected",
    history: str = "history",
    system: str = "system",
    role: str = "role",
    content: str = "content",
) -> Iterator[pa.Table]:
    """RAW tables of the pairs that begin in a split. The options
    name the fields; the last two name those of a turn."""
    names = _Fields(prompt, chosen, rejected, history, system, role, content)
    yield from tables(split, conversations.records(split, names.pair))
