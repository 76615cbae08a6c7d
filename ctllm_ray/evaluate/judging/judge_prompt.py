"""The prompts for a judge: its published prompt with neutralized texts, and a reminder for repeated requests.

A judge's prompt is pinned; its SHA-256 stands beside every score. Only text that imitates it is changed, by a space
that leaves it readable: marks in double brackets, the words that frame an answer, and what chat templates
take for the end of a turn.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from ctllm_ray.evaluate.judging import marks

_FRAMES = re.compile(r"([\[［【])(?=\s*(?:指令|问题|助手回答开始|助手回答结束)\s*[\]］】])")
_TURNS = re.compile(r"<(?=\||/?s>|(?:start|end)_of_turn>|/?think>|<SYS>>|</SYS>>)|\[(?=/?INST\])", re.I)
_MARKS = re.compile(r"([\[［【])(?=[\[［【]\s*[^\[\]［］【】\n]{1,12}\s*[\]］】]{2})")


def neutralise(text: str) -> str:
    """The text without anything that a judge or its chat template may take for the surrounding frame."""
    for imitation in (_FRAMES, _TURNS, _MARKS):
        text = imitation.sub(lambda match: f"{match.group()} ", text)
    return text


def prompt_sha256(judge: Any) -> str:
    """SHA-256 (hex) of the system message and the prompt of a judge (a module of judging/judges)."""
    return hashlib.sha256(f"{judge.SYSTEM}\n{judge.PROMPT}".encode()).hexdigest()


def write_messages(judge: Any, question: str, answer: str, refused: str = "") -> list[dict[str, str]]:
    """The conversation with the judge; after a `refused` verdict, with the reminder."""
    prompt = judge.PROMPT.format(question=neutralise(question), answer=neutralise(answer))
    messages = [{"role": "system", "content": judge.SYSTEM}, {"role": "user", "content": prompt}]
    if refused:
        reminder = judge.REMINDER.format(code=code_of(question, answer))
        messages += [{"role": "assistant", "content": refused}, {"role": "user", "content": reminder}]
    return messages


def code_of(question: str, answer: str) -> str:
    """A six-character code from a hash of the judged text, which the text therefore cannot contain."""
    return hashlib.sha256(f"{marks.GRAMMAR}\n{question}\n{answer}".encode()).hexdigest()[:6]
