"""Encodes a conversation for a model: by our own rule, or by the chat template of another model.

Our rule (tokenizer/chat_template.py) never makes a string of it, so what spells a special stays text. A
foreign template is a Jinja program over strings, run in transformers' sandbox; specials are found in what it
renders. So it is rendered twice, once with a mark in the place of each content: where both have the same
specials, the string is encoded as transformers would; where a content spells a special, the marked one is,
with each content encoded by itself.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError
from ctllm_ray.tokenizer import chat_template, convert, specials
from ctllm_ray.tokenizer.tokenizer import Tokenizer

Turn = Mapping[str, str]  # `role` and `content`


def read_template(folder: str) -> str:
    """Reads a model's chat template: its own file, else the
    tokenizer configuration; of several, the default one.

    Returns an empty string if the model has none.
    """
    names = storage.list_names(folder)
    if chat_template.FILE in names:
        return storage.read_bytes(storage.join(folder, chat_template.FILE)).decode()
    config = storage.read_json(storage.join(folder, convert.CONFIG)) if convert.CONFIG in names else {}
    result = config.get("chat_template") or ""
    if isinstance(result, list):
        result = {entry["name"]: entry["template"] for entry in result}.get("default", "")
    return result


class ConversationEncoder:
    """Encodes turns for one model. `template` is the model's Jinja template; empty if it has none."""

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        self._tokenizer, self._template = tokenizer, template

    def encode_prompt(self, turns: Sequence[Turn]) -> list[int]:
        """The ids up to the point where the assistant speaks. Raises `InputError` for turns that
        the model does not support."""
        if self._is_ours:
            return chat_template.encode_prompt(self._tokenizer, turns).tolist()
        if not self._template:
            remedy = "this is a base model: use /v1/completions"
            raise InputError("this model has no chat template", where="messages", remedy=remedy)
        return self._foreign(turns)

    @property
    def _is_ours(self) -> bool:
        ours = {*chat_template.ROLES.values(), specials.END} <= self._tokenizer.specials.keys()
        return ours and self._template.strip() in ("", chat_template.TEMPLATE.strip())

    def _foreign(self, turns: Sequence[Turn]) -> list[int]:
        marks = [f"\ue000{secrets.token_hex(8)}\ue001" for _ in turns]
        marked = self._render([{**turn, "content": mark} for turn, mark in zip(turns, marks, strict=True)])
        plain = self._render(turns)
        if self._specials.findall(plain) == self._specials.findall(marked):
            return self._encode(plain)
        contents = {mark: turn["content"] for mark, turn in zip(marks, turns, strict=True)}
        parts = re.split(f"({'|'.join(marks)})", marked)
        return [
            id_
            for part in parts
            for id_ in (self._text(contents[part]) if part in contents else self._encode(part))
        ]

    def _render(self, turns: Sequence[Turn]) -> str:
        import jinja2
        from transformers.utils.chat_template_utils import render_jinja_template

        named: dict[str, Any] = {"add_generation_prompt": True, **self._tokenizer.token_names}
        try:
            rendered = render_jinja_template(
                conversations=[list(map(dict, turns))], chat_template=self._template, **named
            )
        except jinja2.TemplateError as error:
            remedy = "send turns that the template accepts, or correct the template in the model's folder"
            raise InputError(
                f"the model's chat template rejects this conversation: {error}",
                where="messages",
                remedy=remedy,
            ) from None
        return rendered[0][0]

    def _encode(self, text: str) -> list[int]:
        """Encodes a text in which special tokens count as such."""
        known = self._tokenizer.specials
        return [
            id_
            for part in self._specials.split(text)
            for id_ in ([known[part]] if part in known else self._text(part))
        ]

    def _text(self, text: str) -> list[int]:
        return self._tokenizer.encode([text])[0].tolist() if text else []

    @cached_property
    def _specials(self) -> re.Pattern[str]:
        longest_first = sorted(self._tokenizer.specials, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")
