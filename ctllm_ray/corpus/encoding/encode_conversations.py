"""Encodes conversations and preference pairs to token ids by the chat template, one table at a time.

A conversation is one row of TOKENS with the spans of its answers. A pair is two rows, the chosen one first;
only the text after the prompt is an answer. No EOS follows: a conversation ends with `<|end|>`, as in
serving. Sizes are those of the answers' text (shards/tokens.py explains why).

A conversation longer than `max_tokens` (for a pair both sides together) is rejected, or cut at its end; in a
pair the longer side is cut first. A cut must leave an answer, and in a pair two different ones. Text after
the last remaining answer is cut as well, since nothing in it is trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from ctllm_ray.base.recipe_training import Conversations
from ctllm_ray.corpus.readers.conversations import Turn
from ctllm_ray.shards import tokens
from ctllm_ray.shards.tokens import Form
from ctllm_ray.tokenizer import chat_template
from ctllm_ray.tokenizer.tokenizer import Tokenizer

TOO_LONG, NO_ANSWER, NO_DIFFERENCE = "too_long", "cut_without_answer", "cut_to_identical"


@dataclass(frozen=True)
class EncodedSide:
    """An encoded conversation: ids, a mask of the same length that is True in answers,
    and the text of the answers."""

    ids: np.ndarray
    answer_mask: np.ndarray
    text: str


@dataclass(frozen=True)
class EncodedTable:
    """`table` is TOKENS. Row i comes from row `documents[i]`. `counts` has kept, cut, and reject:<kind>."""

    table: pa.Table
    documents: np.ndarray
    counts: Counter[str]


def encode_table(
    documents: pa.Table, form: Form, tokenizer: Tokenizer, part: Conversations, scores: Sequence[str]
) -> EncodedTable:
    """Encodes a table of clean conversations or pairs (`id`, `text`, `scores`), in the same order."""
    rows: list[int] = []
    said: list[EncodedSide] = []
    counts: Counter[str] = Counter()
    for row, text in enumerate(documents["text"].to_pylist()):
        sides = [_conversation(tokenizer, *side) for side in _sides(orjson.loads(text), form)]
        fitting = _fitting(sides, part, tokenizer, counts)
        counts["kept"] += bool(fitting)
        said += fitting
        rows += [row] * len(fitting)
    chosen = documents.take(pa.array(rows, pa.int64()))
    table = tokens.table(
        chosen["id"].combine_chunks(),
        [one.ids for one in said],
        np.array([len(one.text.encode()) for one in said], np.int32),
        np.array([len(one.text) for one in said], np.int32),
        {name: chosen["scores"].combine_chunks().field(name) for name in scores},
        tokens.id_type(tokenizer.vocab_size),
    )
    answers = [_spans(one.answer_mask) for one in said]
    return EncodedTable(tokens.with_answers(table, answers, form), np.array(rows, np.int64), counts)


def _sides(content: Any, form: Form) -> list[tuple[list[Turn], int]]:
    """(turns, number of prompt turns) of the conversation, or of both sides of a pair."""
    if form == "conversations":
        return [(content, 0)]
    prompt = content["prompt"]
    return [([*prompt, *content[side]], len(prompt)) for side in ("chosen", "rejected")]


def _conversation(tokenizer: Tokenizer, turns: list[Turn], prompt: int) -> EncodedSide:
    ids, answer_mask = chat_template.encode_conversation(tokenizer, turns)
    if prompt:
        answer_mask[: len(chat_template.encode_conversation(tokenizer, turns[:prompt])[0])] = False
    learnt = (turn for turn in turns[prompt:] if turn["role"] == "assistant" and turn.get("weight") != 0)
    text = "".join(turn["content"] for turn in learnt)
    return EncodedSide(ids, answer_mask, text)


def _fitting(
    sides: list[EncodedSide], part: Conversations, tokenizer: Tokenizer, counts: Counter[str]
) -> list[EncodedSide]:
    """The sides cut to fit; empty if they are rejected. Counts rejects."""
    lengths = [len(side.ids) for side in sides]
    if sum(lengths) <= part.max_tokens:
        return sides
    if part.too_long == "reject":
        counts[f"reject:{TOO_LONG}"] += 1
        return []
    most = [part.max_tokens - other for other in _others(lengths, part.max_tokens)]
    cut = [_truncate(side, length, tokenizer) for side, length in zip(sides, most, strict=True)]
    if not all(side.answer_mask.any() for side in cut):
        counts[f"reject:{NO_ANSWER}"] += 1
        return []
    if len(cut) > 1 and np.array_equal(cut[0].ids, cut[1].ids):
        counts[f"reject:{NO_DIFFERENCE}"] += 1
        return []
    counts["cut"] += 1
    return cut


def _others(lengths: list[int], max_tokens: int) -> list[int]:
    """Tokens reserved for the other side of a pair: all of it, up to a half."""
    half = -(-max_tokens // 2)
    return [min(length, half) for length in reversed(lengths)] if len(lengths) > 1 else [0]


def _truncate(side: EncodedSide, most: int, tokenizer: Tokenizer) -> EncodedSide:
    """The first `most` ids, cut after the last answer id."""
    if len(side.ids) <= most:
        return side
    last = np.flatnonzero(side.answer_mask[:most])
    stop = int(last[-1]) + 1 if len(last) else 0
    ids, answer_mask = side.ids[:stop], side.answer_mask[:stop]
    return EncodedSide(ids, answer_mask, tokenizer.decode(ids[answer_mask]))


def _spans(answer_mask: np.ndarray) -> np.ndarray:
    """[start, stop, ...] of the stretches of True, int32."""
    return np.flatnonzero(np.diff(answer_mask, prepend=False, append=False)).astype(np.int32)
