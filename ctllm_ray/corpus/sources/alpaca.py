"""Instructions in Alpaca's format: JSON lines with
`instruction`, `input`, `output`, optional `history`, `system`.

What is rejected and why: corpus/readers/conversations.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from ctllm_ray.base.storage import File
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import conversation_fields, conversations, json_lines
from ctllm_ray.corpus.readers.conversations import Turn, make_turn, text
from ctllm_ray.corpus.readers.records import tables

FORMS = ("conversations",)


class _Fields(NamedTuple):
    instruction: str
    input: str
    output: str
    history: str
    system: str

    def turns(self, fields: dict[str, Any]) -> list[Turn]:
        """The turns of a line. Raises `Unfit`."""
        conversation_fields.check_record(fields, *self)
        answer = text(conversations.require_field(fields, self.output), self.output)
        instruction = text(conversations.require_field(fields, self.instruction), self.instruction)
        question = conversations.question(instruction, text(fields.get(self.input), self.input))
        before = conversations.history(fields.get(self.history))
        system = make_turn("system", text(fields.get(self.system), self.system))
        return conversations.check_turns(
            [system, *before, make_turn("user", question), make_turn("assistant", answer)]
        )


def spans(file: File, split_bytes: int) -> list[tuple[int, int | None]]:
    """Spans of a file in unpacked bytes."""
    return json_lines.spans(file, split_bytes)


def alpaca(
    split: Split,
    *,
    instruction: str = "instruction",
    input: str = "input",
    output: str = "output",
    history: str = "history",
    system: str = "system",
) -> Iterator[pa.Table]:
    """RAW tables of the instructions that begin in a split; the options name the fields."""
    names = _Fields(instruction, input, output, history, system)
    yield from tables(split, conversations.records(split, names.turns))
