"""Conversations in OpenAI's format: JSON lines with {"messages": [{role, content}]}.

`developer` is taken for `system`; parts of text are joined; a field `system` beside the turns comes first.
What is rejected and why: corpus/readers/conversations.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from ctllm_ray.base.storage import File
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import conversation_fields, conversations, json_lines
from ctllm_ray.corpus.readers.conversations import Turn
from ctllm_ray.corpus.readers.records import tables

FORMS = ("conversations",)


def spans(file: File, split_bytes: int) -> list[tuple[int, int | None]]:
    """Spans of a file in unpacked bytes."""
    return json_lines.spans(file, split_bytes)


def messages(split: Split, *, messages: str = "messages") -> Iterator[pa.Table]:
    """RAW tables of the conversations that begin in a split; the option names the field with the turns."""
    yield from tables(split, conversations.records(split, partial(_turns, messages)))


def _turns(name: str, fields: dict[str, Any]) -> list[Turn]:
    conversation_fields.check_record(fields, name)
    conversation_fields.refuse(fields, "history")
    result = conversations.turns(conversations.require_field(fields, name), name)
    return conversations.check_turns(conversations.with_system(fields.get("system"), result))
