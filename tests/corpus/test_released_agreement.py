"""`map_cc_as_released` against what CT-LLM's released functions returned for every record of the raw crawl.

The stages are played here one record at a time straight from the recipe, with scores as float32 as in a run, so that
the recipe's measures, options, bounds and their order are what is tested.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard

from ctllm_ray.base.resolve import MEASURES, STAGES, check_options, resolve
from ctllm_ray.base.rules import Rule
from ctllm_ray.corpus.stages.ct_llm_released import ct_llm_released
from ctllm_ray.shards import schema

RECIPE = Path(__file__).resolve().parents[2] / "jobs" / "recipes" / "map_cc_as_released.yaml"

#: What the released code calls a failed rule, and the measure that stands for it.
MEASURE_OF = {
    "Number of senteces less than 1": "released.sentence_count",
    "Word count less than 50 or larger than 10000": "released.char_count",
    "Mean word length less than 1.3 or larger than 10": "released.mean_word_length",
    "Hash tag ratios exceeding 0.1": "released.hashtag_run_share",
    "Ellipsis ratios exceeding 0.1": "released.ellipsis_run_share",
    "Digit over non_punctuation words": "released.digit_share",
    "Lines ending with readmore etc.": "released.readmore_line_share",
    "Line starting with bullet point": "released.bullet_line_share",
    "Punctuation ratio": "released.punctuation_share",
    "Unique words fraction": "released.distinct_char_share",
    "Entropy of unigram distribution": "released.unigram_entropy_nats",
}
#: The bounds that the released repetition rules were meant to have, in their order; the program ignores the outcome.
MEANT = {"released.top_ngram_share": {2: 0.2, 3: 0.18, 4: 0.16}, "released.distinct_ngram_char_share": {}}
MEANT["released.distinct_ngram_char_share"] = dict.fromkeys(range(5, 11), 0.6)


class Outcome(NamedTuple):
    """What became of one text: cleaned form, deciding rule ("" where kept) and the value it had."""

    text: str
    rule: str
    value: float


@cache
def stages() -> list[dict[str, Any]]:
    """The recipe's stages after extraction, with rules parsed."""
    plain = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["stages"]
    assert plain[0] == {"use": "extract"}
    return [stage | {"rules": [Rule(**rule) for rule in stage.get("rules", [])]} for stage in plain[1:]]


def measured(rule: Rule, text: str) -> float:
    """The value of a rule's measure."""
    return resolve(MEASURES, rule.use)(text, **rule.options)


def released(text: str) -> Outcome:
    """The recipe's decision about a text, rule by rule in its order."""
    for stage in stages():
        if stage["use"] == "ct_llm_released":
            text = cleaned(text)
        for rule in stage["rules"]:
            if not rule.decides:
                continue
            value = measured(rule, text)
            if rule.violated(np.array([value], np.float32))[0][0]:
                return Outcome(text, rule.use, value)
    return Outcome(text, "", 0.0)


def cleaned(text: str) -> str:
    """The text as the cleaning stage leaves it."""
    raw = pa.Table.from_pylist([{"id": "x#0", "text": text}], schema=schema.RAW)
    return ct_llm_released(schema.working(raw, "x"))["text"][0].as_py()


def repetition(text: str) -> tuple[str, float]:
    """The first of the ignored repetition rules that the text breaks, as the reference labels it, with its value."""
    if not text:
        return "total character count", 0.0
    for rule in stages()[-1]["rules"]:
        if not rule.decides:
            n = rule.options["n"]
            value = measured(rule, text)
            if value > MEANT[rule.use][n]:
                where = "the top" if n <= 4 else "duplicate"
                return f"characters in {where} word {n}gram{'s' if n > 4 else ''}", value
    return "", 0.0


def records(shared_data: Path) -> Iterator[tuple[str, str]]:
    """Id and text of every text record of the raw crawl."""
    for part in sorted((shared_data / "web_zh_raw").glob("part-*.jsonl.zst")):
        with part.open("rb") as packed:
            stream = zstandard.ZstdDecompressor().stream_reader(packed)
            for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n"):
                record = json.loads(line)
                if "raw_content" in record:
                    yield record["doc_id"], record["raw_content"]


def reference(shared_data: Path) -> dict[str, dict[str, Any]]:
    """What the released functions returned, by id."""
    table = pq.read_table(shared_data / "reference_values" / "ct_llm_released_filter.parquet")
    return {row["doc_id"]: row for row in table.to_pylist()}


def disagreements(text: str, row: dict[str, Any]) -> list[str]:
    """The columns of the reference in which our outcome differs."""
    ours = released(text)
    if ours.rule == "released.bracket_share" or not row["unify_ok"]:
        share = json.loads(row["unify_flag"] or "{}").get("bracket ratio")
        same = ours.rule == "released.bracket_share" and ours.value == pytest.approx(share, abs=1e-6)
        return [] if same else ["unify"]
    rule, value = repetition(ours.text)
    agrees = {
        "clean_sha1": hashlib.sha1(ours.text.encode()).hexdigest() == row["clean_sha1"],
        "clean_chars": len(ours.text) == row["clean_chars"],
        "rules_ok": (not ours.rule) == row["rules_ok"],
        "rule": ours.rule == MEASURE_OF.get(row["rule"], ""),
        "rule_value": ours.value == pytest.approx(row["rule_value"] or 0.0, rel=1e-6, abs=1e-6),
        "dup_rule": rule == (row["dup_rule"] or ""),
        "dup_value": value == pytest.approx(row["dup_value"] or 0.0, abs=1e-6),
    }
    return [column for column, same in agrees.items() if not same]


def test_a_sample_with_every_kind_of_decision_agrees_with_the_released_program(shared_data):
    expected = reference(shared_data)
    seen: Counter[tuple[Any, ...]] = Counter()
    wrong = {}
    for index, (name, text) in enumerate(records(shared_data)):
        row = expected[name]
        kind = (row["unify_ok"], row["rule"], row["dup_rule"])
        seen[kind] += 1
        if index % 60 == 0 or seen[kind] <= 20:
            columns = disagreements(text, row)
            if columns:
                wrong[name] = columns
    assert wrong == {}
    assert {rule for _, rule, _ in seen} == {None, *MEASURE_OF} - {"Punctuation ratio"}  # that rule fires nowhere


@pytest.mark.slow
def test_every_record_agrees_with_the_released_program(shared_data):
    expected = reference(shared_data)
    wrong = {name: columns for name, text in records(shared_data) if (columns := disagreements(text, expected[name]))}
    assert wrong == {}


# What the released program decides, shown on texts of our own; numbers are those of docs/reference-released.md.

PROSE = (
    "昨天傍晚，镇上的老书店终于重新开门。店主把门口的灯修好，又在窗边摆了三张旧木桌。"
    "放学的孩子围过来翻连环画，几位退休教师坐下喝茶，谈起三十年前排队买新书的冬天！"
)


def test_clean_prose_is_kept():
    assert released(PROSE).rule == ""


def test_bug_1_no_text_is_rejected_for_repetition():
    text = PROSE + "哈" * 60
    assert repetition(cleaned(text))[0] == "characters in the top word 2gram"
    assert released(text).rule == ""
    assert not any(rule.decides for rule in stages()[-1]["rules"] if "ngram" in rule.use)


def test_bug_3_a_pasted_paragraph_is_caught_by_accident_or_not_at_all():
    assert released(PROSE * 5).rule == ""
    assert released(PROSE * 30).rule == "released.distinct_char_share"
    assert repetition(cleaned(PROSE * 30)) == ("", 0.0)


def test_bug_4_english_passes_every_rule_that_is_not_a_language_model():
    text = 'On Friday, 14 June, J. Quixley (Vermont) wrote: "Why pay $95 for a zigzag box?" We kept 37 of them; X & Y.'
    assert released(text).rule == ""


def test_bug_5_gambling_spam_passes_every_rule():
    text = (
        "澳门娱乐城线上开户，首存送彩金888元！百家乐、老虎机、时时彩应有尽有。加客服微信领红包，提款秒到账，稳赚不赔。"
    )
    assert released(text * 2).rule == ""


def test_bug_6_a_record_without_url_passes_through_our_stage():
    raw = pa.Table.from_pylist([{"id": "x#0", "text": PROSE, "url": None}], schema=schema.RAW)
    out = ct_llm_released(schema.working(raw, "x"))
    assert out["reject"].null_count == 1
    assert out["text"][0].as_py() == PROSE.translate({ord("，"): ",", ord("。"): ".", ord("！"): "!"})


def test_bug_8_a_text_of_10001_characters_is_dropped_whatever_it_says():
    novel = "".join(chr(0x4E00 + i % 4000) for i in range(9990)) + "。完了。好的。再"
    assert released(novel[1:]).rule != "released.char_count"
    assert (released(novel + "见面了吧").rule, released(novel + "见面了吧").value) == ("released.char_count", 10002.0)


def test_rejected_and_absent_texts_are_not_cleaned():
    rows = [
        {"id": "x#0", "text": "甲。", "reject": "error.encoding"},
        {"id": "x#1", "text": None, "raw": b"<p>"},
        {"id": "x#2", "text": "乙。"},
    ]
    out = ct_llm_released(schema.working(pa.Table.from_pylist(rows, schema=schema.RAW), "x"))
    assert out["text"].to_pylist() == ["甲。", None, "乙."]
    assert out.schema.field("text").type == pa.string()


def test_every_option_of_the_recipe_is_one_that_its_function_takes():
    for stage in stages():
        for rule in stage["rules"]:
            assert check_options(resolve(MEASURES, rule.use), rule.options, "recipe") == rule.options
    assert resolve(STAGES, "ct_llm_released") is ct_llm_released
