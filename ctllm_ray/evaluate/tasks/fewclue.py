"""FewCLUE: nine small tasks of Chinese understanding (Xu et al. 2021), as texts whose next word is scored.

lm-eval does not have it. Each part is a prompt and the words that stand for its labels; the parts with label
sets of their own (iflytek, csldcp) take the words from the file. Where a sentence has a gap (chid), the rest
of the sentence follows the candidate, so that its fit to both sides counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.benchmark_files import ID, BenchmarkTable, Row, field_of, table
from ctllm_ray.evaluate.formats import choices
from ctllm_ray.evaluate.task import NoLabel, Task, by, choose_rows, examples, finish, sort_out

_GAP = "#idiom#"
_NO_LABEL = ("-", "")  # OCNLI's annotators did not agree
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
    split: str = "dev",
    shots: Annotated[int, Field(ge=0)] = 0,
    limit: Annotated[int, Field(ge=0)] = 0,
) -> list[Task]:
    """One task per part (empty: all with rows of the split): items of `split`, examples of the train split.

    `split` is a prefix: `dev` means dev_0 to dev_few_all, `test_public` the public test with labels.
    """
    if unknown := [part for part in parts if part not in _PARTS]:
        raise RecipeError(f"FewCLUE has no part {unknown[0]!r}", remedy=f"use one of {', '.join(_PARTS)}")
    benchmark_table = table(path)
    there = by(benchmark_table.rows, lambda row: str(field_of(row, "_task", "task")))
    if missing := [part for part in parts if part not in there]:
        raise InputError(
            f"there are no rows of {missing[0]!r}", where=path, remedy=f"available parts: {', '.join(there)}"
        )
    items = {part: _of_split(there.get(part, []), split) for part in parts or _PARTS}
    if empty := [part for part in parts or items if not items[part] and (parts or not any(items.values()))]:
        splits = sorted({_split_of(row) for row in benchmark_table.rows})
        remedy = f"set split to an existing one: {', '.join(splits)}"
        raise InputError(
            f"there are no rows of the split {split!r} in {', '.join(empty)}", where=path, remedy=remedy
        )
    return finish(
        [
            _task(part, there[part], items[part], shots, limit, benchmark_table)
            for part in items
            if items[part]
        ],
        path,
    )


def _task(
    part: str,
    rows: Sequence[Row],
    item_rows: Sequence[Row],
    shots: int,
    limit: int,
    benchmark_table: BenchmarkTable,
) -> Task:
    """The task of one part over the rows `asked`."""
    words = sorted({_word(row) for row in rows if _is_labelled(row)}) if part in _OWN_LABELS else []

    def build(row: Row) -> Row:
        return _PARTS[part](row, words)

    items, left_out = sort_out(choose_rows(item_rows, limit), build)
    train, _ = sort_out(choose_rows(_of_split(rows, "train"), shots), build)
    shown = examples(train, shots, f"{benchmark_table.rows[0][ID].partition('#')[0]}: {part}")
    measure = "acc_norm" if part in _OWN_LABELS else "acc"
    return replace(
        choices.task(part, items, shown, benchmark_table.files, measure=measure), left_out=left_out
    )


def _of_split(rows: Sequence[Row], split: str) -> list[Row]:
    return [row for row in rows if _split_of(row).startswith(split)]


def _split_of(row: Row) -> str:
    return str(field_of(row, "_split", "split"))


def _is_labelled(row: Row) -> bool:
    return any(row.get(name) not in (None, *_NO_LABEL) for name in ("label_des", "label"))


def _label_row(row: Row, text: str, words: dict[str, str], label: str) -> Row:
    """A row whose answer is the word for its label. Raises `NoLabel` if its annotators did not agree."""
    if label in _NO_LABEL:
        raise NoLabel(f"the label is {label!r}", where=row[ID])
    if label not in words:
        raise InputError(f"unknown label {label!r}", where=row[ID], remedy=f"use one of {', '.join(words)}")
    return choices.row(row[ID], text, list(dict.fromkeys(words.values())), words[label])


def _label(row: Row, name: str = "label") -> str:
    """The label; empty if the row has none, as in a test split that is not public."""
    return str(field_of(row, name)) if row.get(name) is not None else ""


def _tnews(row: Row, _: Sequence[str]) -> Row:
    return _label_row(row, f"新闻标题：{field_of(row, 'sentence')}\n类别：", _NEWS, _label(row, "label_desc"))


def _eprstmt(row: Row, _: Sequence[str]) -> Row:
    return _label_row(row, f"评论：{field_of(row, 'sentence')}\n情感：", _MOOD, _label(row))


def _bustm(row: Row, _: Sequence[str]) -> Row:
    text = f"句子一：{field_of(row, 'sentence1')}\n句子二：{field_of(row, 'sentence2')}\n两句话的意思："
    return _label_row(row, text, _SAME, _label(row))


def _ocnli(row: Row, _: Sequence[str]) -> Row:
    text = f"前提：{field_of(row, 'sentence1')}\n假设：{field_of(row, 'sentence2')}\n关系："
    return _label_row(row, text, _FOLLOWS, _label(row))


def _csl(row: Row, _: Sequence[str]) -> Row:
    keywords = "、".join(field_of(row, "keyword"))
    text = f"摘要：{field_of(row, 'abst')}\n关键词：{keywords}\n这些都是摘要的关键词吗？答案："
    return _label_row(row, text, {k: _YES[k] for k in ("0", "1")}, _label(row))


def _cluewsc(row: Row, _: Sequence[str]) -> Row:
    spans = field_of(row, "target")
    text = f"{field_of(row, 'text')}\n其中“{spans['span2_text']}”指的是“{spans['span1_text']}”吗？答案："
    return _label_row(row, text, {k: _YES[k] for k in ("false", "true")}, _label(row).lower())


def _chid(row: Row, _: Sequence[str]) -> Row:
    before, gap, after = field_of(row, "content").partition(_GAP)
    if not gap:
        raise InputError(f"the text has no gap {_GAP}", where=row[ID], remedy="correct the row")
    filled = [f"{candidate}{after}" for candidate in field_of(row, "candidates")]
    if row.get("answer") is None:
        raise NoLabel("the row has no answer", where=row[ID])
    return choices.row(row[ID], before or "\n", filled, filled[row["answer"]])


def _iflytek(row: Row, words: Sequence[str]) -> Row:
    return choices.row(row[ID], f"应用介绍：{field_of(row, 'sentence')}\n类别：", words, _word(row))


def _csldcp(row: Row, words: Sequence[str]) -> Row:
    return choices.row(row[ID], f"摘要：{field_of(row, 'content')}\n学科：", words, _word(row))


def _word(row: Row) -> str:
    """The label in words, for parts that name it in the file."""
    if not _is_labelled(row):
        raise NoLabel("the row has no label", where=row[ID])
    return str(field_of(row, "label_des", "label"))


_OWN_LABELS = ("iflytek", "csldcp")
_PARTS: dict[str, Callable[[Row, Sequence[str]], Row]] = {
    "tnews": _tnews, "eprstmt": _eprstmt, "bustm": _bustm, "ocnli": _ocnli, "csl": _csl, "cluewsc": _cluewsc,
    "chid": _chid, "iflytek": _iflytek, "csldcp": _csldcp,
}  # fmt: skip
