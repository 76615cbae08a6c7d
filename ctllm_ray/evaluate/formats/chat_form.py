"""The prompt format of a model: its own chat template, or plain text that a base model completes.

A model with a chat template was trained on conversations. Our own models carry one from pretraining on, so
for them the lineage tells whether they were trained on turns. A recipe may override the choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ctllm_ray.base.errors import InputError
from ctllm_ray.base.exports import is_base, read_lineage
from ctllm_ray.tokenizer.conversations import ConversationEncoder, read_template
from ctllm_ray.tokenizer.tokenizer import Tokenizer

Form = Literal["auto", "chat", "completion"]

COMPLETION = "问题：{query}\n回答："
NEXT_QUESTION = "\n问题："  # where a base model begins to write questions itself


@dataclass(frozen=True)
class ChatForm:
    """The prompt format of one model. `template` is its chat template; empty: completion."""

    tokenizer: Tokenizer
    template: str

    @property
    def name(self) -> str:
        """`chat` or `completion`, as in the results."""
        return "chat" if self.template else "completion"

    @property
    def until(self) -> tuple[str, ...]:
        """Texts that end an answer, in addition to the model's own end tokens."""
        return () if self.template else (NEXT_QUESTION,)

    def write_prompt(self, query: str) -> list[int]:
        """The prompt ids of a question. Raises `InputError` if the template rejects it."""
        if not self.template:
            text = self.tokenizer.encode([COMPLETION.format(query=query)])[0].tolist()
            return [*self.tokenizer.prefix_ids, *text]
        return ConversationEncoder(self.tokenizer, self.template).encode_prompt(
            [{"role": "user", "content": query}]
        )


def choose_form(folder: str, tokenizer: Tokenizer, form: Form = "auto") -> ChatForm:
    """The format for the model in a folder. Raises `InputError` if it has no template but needs one."""
    template = read_template(folder)
    if form == "chat" and not template:
        remedy = "put chat_template.jinja into the folder, or set evaluate.judge.form=completion"
        raise InputError("this model has no chat template", where=folder, remedy=remedy)
    taught = form == "chat" or (form == "auto" and not is_base(read_lineage(folder)))
    return ChatForm(tokenizer, template if taught else "")
