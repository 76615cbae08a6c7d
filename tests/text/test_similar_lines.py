"""Similar lines: what counts as said twice, and everything that must not."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from ctllm_ray.text.lines.similar_lines import candidates, key, similar

LONG = "在消息面的影响下，白银价格亦是飞流直线三千尺。"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("今天天气很好，我们去公园。", "今天天气很好 我们去公园！"),
        ("售价１２元（含税）起，欢迎选购", "售价12元(含税)起,欢迎选购"),
        ("頭髮與發展計劃說明書", "头发与发展计划说明书"),
        ("## ■ 产品特点与使用方法", "产品特点与使用方法"),
        ("“他来了”，大家说", "『他来了』，大家说"),
        ("　　段首缩进不算", "段首缩进不算"),
    ],
)
def test_punctuation_blanks_width_script_and_opening_marks_do_not_count(a: str, b: str) -> None:
    assert key(a) == key(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("甲方应当向乙方支付全部货款", "乙方应当向甲方支付全部货款"),  # parties swapped
        ("圆周率约为3.14，面积按此计算", "圆周率约为314，面积按此计算"),
        ("每公斤售价15.80元", "每公斤售价15.90元"),
        ("温度为-5度的时候", "温度为5度的时候"),
        ("时间是8:30开始", "时间是830开始"),
        ("选三、五两项", "选三五两项"),
        ("共有二十人到会", "共有三十人到会"),
        ("张伟出席了会议", "张维出席了会议"),
        ("当事人有权提出上诉", "当事人无权提出上诉"),
        ("他昨天已经回来了", "他昨天已经回来吗"),
        ("他真的会来？", "他真的会来。"),
        ("涨了5%左右", "涨了5左右"),
        ("if (a) b", "if (ab)"),
        ("第1 2章", "第12章"),
    ],
)
def test_a_changed_number_name_negation_particle_or_order_is_another_line(a: str, b: str) -> None:
    assert key(a) != key(b)
    assert similar([a * 3, b * 3], reach="anywhere", min_han=1) == []


def test_a_line_pasted_many_times_collapses_to_one() -> None:
    assert similar([LONG] * 30, reach="adjacent", min_han=12) == [*range(1, 30)]
    assert similar(["塞下曲"] * 9, reach="adjacent", min_han=12) == [*range(1, 9)]


def test_a_block_pasted_twice_side_by_side_goes_once() -> None:
    block = ["第一段讲的是白银市场昨天的走势。", "", "第二段讲的是黄金市场今天的走势。"]
    assert similar([*block, "", *block, "完"], reach="adjacent", min_han=12) == [4, 6]


def test_refrains_dialogue_and_verse_stay() -> None:
    song = ["啊，我的故乡", "啊，我的故乡", "山高水长", "啊，我的故乡", "「嗯。」", "「嗯。」", "「嗯。」"]
    odes = ["岂曰无衣？与子同袍。", "王于兴师，修我戈矛。", "岂曰无衣？与子同泽。", "王于兴师，修我矛戟。"]
    for reach in ("adjacent", "anywhere"):
        assert similar(song, reach=reach, min_han=12) == []  # type: ignore[arg-type]
        assert similar(odes * 2, reach=reach, min_han=12) == []  # type: ignore[arg-type]


def test_a_statute_keeps_the_item_that_closes_each_of_its_lists() -> None:
    item = "（四）法律、法规规定的其他应当予以处罚的情形。"
    text = ["第一条　有下列情形之一的：", item, "第二条　有下列情形之一的：", item]
    assert similar(text, reach="anywhere", min_han=12) == []


def test_distant_copies_go_only_where_the_reach_says_so() -> None:
    text = [LONG, "中间的一段话。", LONG]
    assert similar(text, reach="adjacent", min_han=12) == []
    assert similar(text, reach="anywhere", min_han=12) == [2]


def test_code_and_tables_stay() -> None:
    for line in (
        "        return self.assertEqual(first, second)",
        "| 正常 | 正常运行中的设备 | 正常运行中的设备 |",
        "0.0 0.0",
    ):
        assert similar([line] * 6, reach="anywhere", min_han=12) == []


def test_the_screen_misses_no_document_with_similar_lines() -> None:
    rng = random.Random(3)
    lines = [
        LONG,
        LONG.replace("，", " "),
        "在消息面的影響下，白銀價格亦是飛流直線三千尺",
        "短句",
        "塞下曲",
        "",
        "2020年的一行字而已吧",
    ]
    texts = ["\n".join(rng.choices(lines, k=rng.randrange(9))) for _ in range(500)]
    for reach in ("adjacent", "anywhere"):
        screened = candidates(pa.array(texts), reach=reach, min_han=12)  # type: ignore[arg-type]
        for text, found in zip(texts, screened, strict=True):
            assert found or not similar(text.split("\n"), reach=reach, min_han=12)  # type: ignore[arg-type]
        assert not screened.all()
