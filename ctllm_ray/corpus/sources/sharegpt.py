"""Conversations in ShareGPT's format: JSON lines with
{"conversations": [{"from": "human", "value": ...}, ...]}.

Who speaks may be called by any name in `conversations.ROLES` (human, gpt, user, chatgpt, ...); a field
`system` beside the turns comes first. What is rejected and why: corpus/readers/conversations.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from ctllm_ray.base.storage import File
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import conversation_fields, json_lines
from ctllm_ray.corpus.readers.conversations import (
    Turn,
    check_turns,
    records,
    require_field,
    turns,
    with_system,
)
from ctllm_ray.corpus.readers.records import tables

FORMS = ("conversations",)


class _Fields(NamedTuple):
    conversations: str
    role: str
    content: str
    system: str

    def turns(self, fields: dict[str, Any]) -> list[Turn]:
        """The turns of a line. Raises `Unfit`."""
        conversation_fields.check_record(fields, *self)
        conversation_fields.refuse(fields, "history")
        value = require_field(fields, self.conversations)
        turns_read = turns(value, self.conversations, self.role, self.content)
        return check_turns(with_system(fields.get(self.system), turns_read))


def spans(file: File, split_bytes: int) -> list[tuple[int, int | None]]:
    """Spans of a file in unpacked bytes."""
    return json_lines.spans(file, split_bytes)


def sharegpt(
    split: Split,
    *,
    conversations: str = "conversations",
    role: str = "from",
    content: str = "value",
    system: str = "system",
) -> Iterator[pa.Table]:
    """RAW tables of the conversations that begin in a split; the options name the fields."""
    yield from tables(split, records(split, _Fields(conversations, role, content, system).turns))
