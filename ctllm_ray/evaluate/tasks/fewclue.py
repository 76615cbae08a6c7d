"""FewCLUE: nine small tasks of Chinese understanding (Xu et al. 2021), asked as text with a word to come next.

lm-eval does not have it. Each part is a prompt and the words that stand for its labels; the parts with label sets of
their own (iflytek, csldcp) take the words from the file. Where a sentence has a gap (chid), the rest of the sentence
follows the candidate, so that its fit to both sides counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field

from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.base.rows import ID, Row, field_of, table
from ctllm_ray.evaluate import choices
from ctllm_ray.evaluate.task import Task, by, chosen, examples

_GAP = "#idiom#"
_NEWS = {
    "news_story": "故事", "news_culture": "文化", "news_entertainment": "娱乐", "news_sports": "体育",
    "news_finance": "财经", "news_house": "房产", "news_car": "汽车", "news_edu": "教育", "news_tech": "科技",
    "news_military": "军事", "news_travel": "旅游", "news_world": "国际", "news_stock": "股票",
    "news_agriculture": "农业", "news_game": "电竞",
}  # fmt: skip
_MOOD = {"Negative": "负面", "Positive": "正面"}
_SAME = {"0": "不同", "1": "相同"}
_YES = {"0": "否", "1": "是", "false": "否", "true": "是"}
_FOLLOWS = {"entailment": "蕴含", "neutral": "中立", "contradiction": "矛盾"}


def fewclue(
    *,
    path: str,
    parts: tuple[str, ...] = (),
    shots: Annotated[int, Field(ge=0)] = 0,
    limit: Annotated[int, Field(ge=0)] = 0,
) -> list[Task]:
    """A task for each part (empty: all that the file has): items of its dev split, examples of its train split."""
    if unknown := [part for part in parts if part not in _PARTS]:
        raise RecipeError(f"FewCLUE has no part {unknown[0]!r}", remedy=f"parts: {', '.join(_PARTS)}")
    found = table(path)
    there = by(found.rows, lambda row: str(field_of(row, "_task", "task")))
    if missing := [part for part in parts if part not in there]:
        raise InputError(f"no rows of {missing[0]!r}", where=path, remedy=f"parts there: {', '.join(there)}")
    tasks = []
    for part in parts or [name for name in _PARTS if name in there]:
        words = sorted({_word(row) for row in there[part]}) if part in _OWN_LABELS else []
        dev, train = (
            [_PARTS[part](row, words) for row in there[part] if str(field_of(row, "_split", "split")).startswith(name)]
            for name in ("dev", "train")
        )
        shown = examples(chosen(train, shots), shots, f"{path}: {part}")
        measure = "acc_norm" if part in _OWN_LABELS else "acc"
        tasks.append(choices.task(part, chosen(dev, limit), shown, found.files, measure=measure))
    return tasks


def _labelled(row: Row, text: str, words: dict[str, str], label: str) -> Row:
    """A row whose answer is the word for its label."""
    if label not in words:
        raise InputError(f"unknown label {label!r}", where=row[ID], remedy=f"labels: {', '.join(words)}")
    return choices.row(row[ID], text, list(dict.fromkeys(words.values())), words[label])


def _tnews(row: Row, _: Sequence[str]) -> Row:
    return _labelled(row, f"新闻标题：{field_of(row, 'sentence')}\n类别：", _NEWS, field_of(row, "label_desc"))


def _eprstmt(row: Row, _: Sequence[str]) -> Row:
    return _labelled(row, f"评论：{field_of(row, 'sentence')}\n情感：", _MOOD, field_of(row, "label"))


def _bustm(row: Row, _: Sequence[str]) -> Row:
    text = f"句子一：{field_of(row, 'sentence1')}\n句子二：{field_of(row, 'sentence2')}\n两句话的意思："
    return _labelled(row, text, _SAME, str(field_of(row, "label")))


def _ocnli(row: Row, _: Sequence[str]) -> Row:
    text = f"前提：{field_of(row, 'sentence1')}\n假设：{field_of(row, 'sentence2')}\n关系："
    return _labelled(row, text, _FOLLOWS, field_of(row, "label"))


def _csl(row: Row, _: Sequence[str]) -> Row:
    keywords = "、".join(field_of(row, "keyword"))
    text = f"摘要：{field_of(row, 'abst')}\n关键词：{keywords}\n这些都是摘要的关键词吗？答案："
    return _labelled(row, text, {k: _YES[k] for k in ("0", "1")}, str(field_of(row, "label")))


def _cluewsc(row: Row, _: Sequence[str]) -> Row:
    spans = field_of(row, "target")
    text = f"{field_of(row, 'text')}\n其中“{spans['span2_text']}”指的是“{spans['span1_text']}”吗？答案："
    return _labelled(row, text, {k: _YES[k] for k in ("false", "true")}, str(field_of(row, "label")).lower())


def _chid(row: Row, _: Sequence[str]) -> Row:
    before, gap, after = field_of(row, "content").partition(_GAP)
    if not gap:
        raise InputError(f"no gap {_GAP}", where=row[ID], remedy="correct the row")
    filled = [f"{candidate}{after}" for candidate in field_of(row, "candidates")]
    return choices.row(row[ID], before or "\n", filled, filled[field_of(row, "answer")])


def _iflytek(row: Row, words: Sequence[str]) -> Row:
    return choices.row(row[ID], f"应用介绍：{field_of(row, 'sentence')}\n类别：", words, _word(row))


def _csldcp(row: Row, words: Sequence[str]) -> Row:
    return choices.row(row[ID], f"摘要：{field_of(row, 'content')}\n学科：", words, _word(row))


def _word(row: Row) -> str:
    """The label in words, of the parts that name it in the file."""
    return str(field_of(row, "label_des", "label"))


_OWN_LABELS = ("iflytek", "csldcp")
_PARTS: dict[str, Callable[[Row, Sequence[str]], Row]] = {
    "tnews": _tnews, "eprstmt": _eprstmt, "bustm": _bustm, "ocnli": _ocnli, "csl": _csl, "cluewsc": _cluewsc,
    "chid": _chid, "iflytek": _iflytek, "csldcp": _csldcp,
}  # fmt: skip
