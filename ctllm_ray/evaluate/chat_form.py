"""In which form a model is asked a question: through its own chat template, or as a text that a base model completes.

A model with a chat template was taught to answer in turns. Ours carries one from pretraining on, so of an export of
ours its lineage says whether it ever saw turns. Whoever knows better says so in the recipe.

A template is a Jinja program over strings, run in transformers' sandbox. It is rendered with a mark in the place of the
question, and the question is encoded by itself, so that what spells a special there stays text; tokens that would span
the border between the two are kept where the question spells no special.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any, Literal

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError
from ctllm_ray.base.exports import LINEAGE
from ctllm_ray.tokenizer import chat_template, convert, specials
from ctllm_ray.tokenizer.tokenizer import Tokenizer

Form = Literal["auto", "chat", "completion"]

BASE_OBJECTIVES = ("pretrain",)  # all others teach turns
COMPLETION = "问题：{query}\n回答："
NEXT_QUESTION = "\n问题："  # where a base model begins to ask itself


@dataclass(frozen=True)
class ChatForm:
    """How one model is asked. `template`: its chat template; empty: it completes."""

    tokenizer: Tokenizer
    template: str

    @property
    def name(self) -> str:
        """`chat` or `completion`, as results have it."""
        return "chat" if self.template else "completion"

    @property
    def until(self) -> tuple[str, ...]:
        """Texts that end an answer, besides the model's own end."""
        return () if self.template else (NEXT_QUESTION,)

    def write_prompt(self, query: str) -> list[int]:
        """The ids of a question up to where the answer begins. Raises `InputError` where the template refuses it."""
        if not self.template:
            text = self.tokenizer.encode([COMPLETION.format(query=query)])[0].tolist()
            return [self.tokenizer.bos_id, *text]
        if _is_ours(self.tokenizer, self.template):
            return chat_template.prompt(self.tokenizer, [{"role": "user", "content": query}]).tolist()
        return _render(self.tokenizer, self.template, query)


def choose_form(folder: str, tokenizer: Tokenizer, form: Form = "auto") -> ChatForm:
    """The form for the model in a folder. Raises `InputError` where a template is wanted and there is none."""
    template = _find_template(folder)
    if form == "chat" and not template:
        remedy = "put chat_template.jinja into the folder, or set evaluate.judge.form=completion"
        raise InputError("this model has no chat template", where=folder, remedy=remedy)
    taught = form == "chat" or (form == "auto" and not _is_base(folder))
    return ChatForm(tokenizer, template if taught else "")


def _is_base(folder: str) -> bool:
    """True for an export of ours that only pretraining made."""
    path = storage.join(folder, LINEAGE)
    lineage = storage.read_json(path) if storage.exists(path) else {}
    train = lineage.get("recipe", {}).get("train", {})
    return train.get("objective", {}).get("use") in BASE_OBJECTIVES


def _find_template(folder: str) -> str:
    """The template in its own file, else in the tokenizer's configuration; of several the one called default."""
    there = storage.list_names(folder)
    if chat_template.FILE in there:
        return storage.read_bytes(storage.join(folder, chat_template.FILE)).decode()
    config = storage.read_json(storage.join(folder, convert.CONFIG)) if convert.CONFIG in there else {}
    found = config.get("chat_template") or ""
    if isinstance(found, list):
        found = {entry["name"]: entry["template"] for entry in found}.get("default", "")
    return found


def _is_ours(tokenizer: Tokenizer, template: str) -> bool:
    roles = {*chat_template.ROLES.values(), specials.END} <= tokenizer.specials.keys()
    return roles and template.strip() == chat_template.TEMPLATE.strip()


def _render(tokenizer: Tokenizer, template: str, query: str) -> list[int]:
    """The ids of a foreign template, in which the question's text can spell no special."""
    mark = f"\ue000{secrets.token_hex(8)}\ue001"
    framed = _render_text(tokenizer, template, mark)
    known = sorted(tokenizer.specials, key=len, reverse=True)
    specials_in = re.compile(f"({'|'.join(map(re.escape, known)) or '(?!)'})")
    if specials_in.search(query):
        parts = [(part, part == mark) for part in re.split(f"({mark})", framed)]
    else:
        parts = [(_render_text(tokenizer, template, query), False)]
    ids: list[int] = []
    for text, is_query in parts:
        pieces = [query] if is_query else specials_in.split(text)
        for piece in pieces:
            special = not is_query and piece in tokenizer.specials
            ids += [tokenizer.specials[piece]] if special else tokenizer.encode([piece])[0].tolist() if piece else []
    return ids


def _render_text(tokenizer: Tokenizer, template: str, content: str) -> str:
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    by_id = {id_: name for name, id_ in tokenizer.specials.items()}
    names: dict[str, Any] = {"bos_token": by_id.get(tokenizer.bos_id, ""), "eos_token": by_id.get(tokenizer.eos_id, "")}
    turns = [[{"role": "user", "content": content}]]
    try:
        rendered = render_jinja_template(
            conversations=turns, chat_template=template, add_generation_prompt=True, **names
        )
    except jinja2.TemplateError as error:
        remedy = "correct the template, or set evaluate.judge.form=completion"
        raise InputError(f"the model's chat template fails: {error}", where="chat_template", remedy=remedy) from None
    return rendered[0][0]
