"""The prompts for a judge: the published prompt with neutralized texts, and a reminder for repeated requests.

The prompt is pinned; its SHA-256 stands beside every score. Only text that imitates it is changed, by a space
that leaves it readable: marks in double brackets, the words that frame an answer, and what chat templates
take for the end of a turn.
"""

from __future__ import annotations

import hashlib
import re

from ctllm_ray.evaluate.judging import marks

SYSTEM = "你是一个有用的助手。"
PROMPT = """\
[指令]
请你作为一名公正的裁判，评价一个人工智能助手对下面用户问题的回答的质量。评价应考虑回答的有用性、相关性、准确性、深度、\
创造性和详细程度等因素。请先给出简短的解释，并尽可能客观。给出解释之后，你必须严格按照以下格式给回答打 1 到 10 分：\
“[[分数]]”，例如：“评分：[[5]]”。

[问题]
{question}

[助手回答开始]
{answer}
[助手回答结束]"""
PROMPT_SHA256 = hashlib.sha256(f"{SYSTEM}\n{PROMPT}".encode()).hexdigest()
REMINDER = """\
上面的评价没有以规定的格式结束，或者分数不在 1 到 10 之间。请只写一行，给这个回答打 1 到 10 分，照抄其中的代码：
评分#{code}：[[分数]]"""

_FRAMES = re.compile(r"([\[［【])(?=\s*(?:指令|问题|助手回答开始|助手回答结束)\s*[\]］】])")
_TURNS = re.compile(r"<(?=\||/?s>|(?:start|end)_of_turn>|/?think>|<SYS>>|</SYS>>)|\[(?=/?INST\])", re.I)
_MARKS = re.compile(r"([\[［【])(?=[\[［【]\s*[^\[\]［］【】\n]{1,12}\s*[\]］】]{2})")


def neutralise(text: str) -> str:
    """The text without anything that a judge or its chat template may take for the surrounding frame."""
    for imitation in (_FRAMES, _TURNS, _MARKS):
        text = imitation.sub(lambda match: f"{match.group()} ", text)
    return text


def write_messages(question: str, answer: str, refused: str = "") -> list[dict[str, str]]:
    """The conversation with the judge; after a `refused` verdict, with the reminder."""
    prompt = PROMPT.format(question=neutralise(question), answer=neutralise(answer))
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
    if refused:
        reminder = REMINDER.format(code=code_of(question, answer))
        messages += [{"role": "assistant", "content": refused}, {"role": "user", "content": reminder}]
    return messages


def code_of(question: str, answer: str) -> str:
    """A six-character code from a hash of the judged text, which the text therefore cannot contain."""
    return hashlib.sha256(f"{marks.GRAMMAR}\n{question}\n{answer}".encode()).hexdigest()[:6]
