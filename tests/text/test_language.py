"""Laws of language identification, with the model in the package and with a fastText model trained here."""

from __future__ import annotations

import io
from pathlib import Path

import orjson
import pytest
import zstandard

from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.text.measures.language import _sample, label, score

ZH = "今天天气很好，我们去公园散步，看见许多人在湖边跑步，孩子们在草地上放风筝。"
HANT = "今天天氣很好，我們去公園散步，看見許多人在湖邊跑步，孩子們在草地上放風箏。"
JA = "今日はとても良い天気なので、公園を散歩しながら湖のほとりで走る人たちを見ました。"
EN = "The weather is fine today, so we took a walk in the park and saw many people running."
KO = "오늘은 날씨가 좋아서 공원을 산책하며 호숫가에서 달리는 많은 사람들을 보았습니다."
LUNYU = "子曰學而時習之不亦說乎有朋自遠方來不亦樂乎人不知而不慍不亦君子乎"


@pytest.mark.parametrize(
    ("text", "expected"),
    [(ZH, "zh"), (HANT, "zh-Hant"), (JA, "ja"), (EN, "en"), (KO, "ko"), (LUNYU, "zh-Hant")],
)
def test_each_language_and_both_scripts_are_told_apart(text: str, expected: str) -> None:
    assert label(text) == expected


def test_both_scripts_count_as_chinese_and_other_languages_do_not() -> None:
    assert score(ZH) > 0.9
    assert score(HANT) > 0.9
    assert score(JA) == score(EN) == score(KO) == 0
    assert score(EN, expect="en") > 0.9
    assert score(HANT, expect="zh-Hant") > 0.9


def test_a_mixed_text_scores_its_share() -> None:
    assert 0.2 < score(ZH * 3 + "\n" + EN * 3) < 0.8


@pytest.mark.parametrize("text", ["", " ", "好", "12345 67890", "\n\n\n", "★☆★☆★☆", "①②③"])
def test_what_cannot_be_told_is_un_and_scores_nothing(text: str) -> None:
    assert label(text) == "un"
    assert score(text) == 0


def test_a_title_of_han_characters_alone_is_never_japanese() -> None:
    for title in ["東京大學教授", "日本語学校案内", "新幹線時刻表", "図書館利用案内", "株式会社設立登記"]:
        assert label(title) != "ja"


@pytest.mark.parametrize(
    "bad", ["\x00", "\x05\x08", "\x85", "\ufffe", "\ufdd0", "\U0001ffff", "\ud800", "\x7f"]
)
def test_characters_that_the_model_refuses_do_not_change_the_answer(bad: str) -> None:
    assert label(bad + ZH[:20] + bad + ZH[20:]) == "zh"


def test_no_code_point_makes_the_model_fail() -> None:
    for start in range(0, 0x110000, 0x1000):
        label("".join(map(chr, range(start, start + 0x1000))), sample_chars=0)


def test_a_long_text_is_judged_by_its_head_middle_and_tail() -> None:
    text = ZH * 100 + EN * 200 + HANT * 100
    part = _sample(text, 600)
    assert part == f"{text[:200]}\n{text[(len(text) - 200) // 2 :][:200]}\n{text[-200:]}"
    assert 0.3 < score(text) < 0.9
    assert score(ZH * 1000) == score(ZH * 100) > 0.9
    assert score(ZH * 100, sample_chars=0) > 0.9
    assert _sample("一二三", 600) == _sample("一二三", 0) == "一二三"


def test_classical_prose_poetry_and_law_are_chinese(shared_data: Path) -> None:
    for name in ("classical_books", "poetry", "laws_prc", "laws_roc_hant"):
        with zstandard.open(shared_data / "text" / f"{name}.jsonl.zst", "rb") as stream:
            lines = io.BufferedReader(stream).readlines()[:1500]  # type: ignore[arg-type]
        texts = [text for text in (orjson.loads(line)["text"] for line in lines) if len(text) >= 50]
        assert sum(label(text) in {"zh", "zh-Hant"} for text in texts) / len(texts) >= 0.99, name


def test_a_model_that_is_not_there_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    pytest.importorskip("fasttext")
    with pytest.raises(InputError, match="the language model does not exist"):
        label(ZH, model=str(tmp_path / "absent.bin"))
    (tmp_path / "text.bin").write_text("not a model")
    with pytest.raises(InputError, match="not a fastText model"):
        label(ZH, model=str(tmp_path / "text.bin"))


def test_a_fasttext_model_without_fasttext_names_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fasttext", None)
    with pytest.raises(RecipeError, match=r"ctllm-ray\[fasttext\]"):
        label(ZH, model="lid.176.bin")


def test_any_fasttext_model_gives_label_and_score_under_the_same_names(tmp_path: Path) -> None:
    fasttext = pytest.importorskip("fasttext")
    names = {
        "__label__zho_Hans": ZH,
        "__label__zho_Hant": HANT,
        "__label__eng_Latn": EN,
        "__label__jpn_Jpan": JA,
    }
    lines = [
        f"{name} {' '.join(text[i : i + 12])}\n"
        for name, text in names.items()
        for i in range(len(text) - 12)
    ]
    (tmp_path / "train.txt").write_text("".join(lines), encoding="utf-8")
    # Ten threads: in 0.9.3 each one fills a tenth of the first weights, and fewer leave NaN in the rest.
    model = fasttext.train_supervised(
        str(tmp_path / "train.txt"), epoch=50, lr=0.5, dim=10, thread=10, verbose=0
    )
    path = str(tmp_path / "tiny.bin")
    model.save_model(path)
    assert [label(" ".join(text), model=path) for text in (ZH, HANT, EN, JA)] == ["zh", "zh-Hant", "en", "ja"]
    assert score(" ".join(ZH), model=path) > 0.8
    assert score(" ".join(EN), model=path, expect="en") > 0.8
    assert label(" ".join(ZH) + "\n" + " ".join(ZH), model=path) == "zh"  # fastText reads one line only
    assert label("", model=path) == "un"
