"""Encodes conversations by our chat template: as token ids, and as a Jinja template for other programs.

    <s> <|system|> text <|end|> <|user|> text <|end|> <|assistant|> text <|end|> ...

transformers, vLLM and llama.cpp use the template. They render a string and then search it for special tokens,
so a user who types `<|end|>` ends the turn. `encode_conversation` never builds such a string: it encodes each
text alone, and text that spells a special token stays text. For texts without such spellings both give equal
ids.

There is no newline and no trimming: a text is trained on as it was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ctllm_ray.base.errors import InputError
from ctllm_ray.tokenizer import specials

FILE = "chat_template.jinja"
ROLES = {"system": specials.SYSTEM, "user": specials.USER, "assistant": specials.ASSISTANT}

#: `generation` marks what an assistant says, including its end token: the mask of supervised fine-tuning.
TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{- '<|assistant|>' -}}
{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}
{%- elif message['role'] in ['system', 'user'] -%}
{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
{%- else -%}
{{- raise_exception('no such role: ' + message['role']) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


class Encoder(Protocol):
    """The part of a tokenizer that this module needs."""

    bos_id: int

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]: ...

    def special_id(self, name: str) -> int: ...


def encode_conversation(
    tokenizer: Encoder, messages: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """The ids of a conversation (int32), and a mask of the same length: True for assistant tokens.

    Answers of `weight` 0 are not learnt; their mask is False. Raises `InputError` for a
    role that is not in ROLES.
    """
    ids, answers = [np.array([tokenizer.bos_id], np.int32)], [np.array([False])]
    end = tokenizer.special_id(specials.END)
    contents = tokenizer.encode([message["content"] for message in messages])
    for message, content in zip(messages, contents, strict=True):
        said = np.array([*content, end], np.int32)
        ids += [np.array([tokenizer.special_id(_opening(message["role"]))], np.int32), said]
        is_learnt = message["role"] == "assistant" and message.get("weight") != 0
        answers += [np.array([False]), np.full(len(said), is_learnt)]
    return np.concatenate(ids), np.concatenate(answers)


def encode_prompt(tokenizer: Encoder, messages: Sequence[Mapping[str, str]]) -> np.ndarray:
    """The ids (int32) of a conversation up to the point where the assistant speaks."""
    return np.append(
        encode_conversation(tokenizer, messages)[0], np.int32(tokenizer.special_id(specials.ASSISTANT))
    )


def _opening(role: str) -> str:
    if role not in ROLES:
        raise InputError(f"unknown role {role!r}", where="messages", remedy=f"use one of {', '.join(ROLES)}")
    return ROLES[role]
