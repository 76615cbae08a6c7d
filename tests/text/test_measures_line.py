"""Measures of lines, worked by hand, each with the pages that it must not mistake."""

from __future__ import annotations

import pytest

from tests.text.interpreted import measured

VERSE = "你站在桥上看风景\n看风景的人\n在楼上看你\n明月装饰了你的窗子\n你装饰了别人的梦"
MENU = "首页\n新闻中心\n产品展示\n成功案例\n人才招聘\n下载专区\n会员登录\n网站地图\n联系我们\n关于我们"
REGULATED = "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。"
PANGU = "我们使用 Python 和 Redis 缓存查询的结果，这样 95% 的请求可以在 20 毫秒内返回"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "天\n\n　 \n地\n", 2),
        ("count", "天\r\n地\r玄\u2028黄", 4),
        ("mean_chars", "　天地 \n玄黄宇宙", 3),  # the spaces around a line are not of it
        ("longest_chars", "天地\n玄黄宇宙\n洪", 4),
        ("short_share", "一二三四五六七八九十\n一二三四五六七八九十一", 1 / 2),
        ("bullet_share", "• 首页\n● 新闻\n正文•", 2 / 3),
        ("bullet_share", "- 首页\n* 新闻", 0),  # Markdown lists are text
        ("ellipsis_share", "全文……\n他说…走\n后来...\n好。。。\n好。", 3 / 5),
        ("ellipsis_share", "好..\n.", 0),
        ("readmore_share", "展开\n查看更多 >>\n[展開]\nRead More...\n更多→\n(更多)", 1),
        ("readmore_share", "展开讨论\n他想了更多的事\nreadmore now", 0),
        ("numeric_share", "2020 3.5 17\n共12人参加\n—\n１２３", 2 / 4),
        ("numeric_share", "12 Жук\n123 да", 1 / 2),  # letters of any script are words
        ("article_share", "第一条 总则\n第 12 條 本法\n第三章 附则\n第一次见面\n第\n条", 3 / 6),
        ("article_share", "第二百零三条\n第４款", 1),
        ("article_share", "第条 本法\n第节课", 0),
        ("duplicate_share", "天地\n 天地\n玄黄\n天地", 2 / 4),
        ("duplicate_char_share", "天地\n天地\n玄黄宇宙", 2 / 8),
        ("duplicate_share", "天地\n地天", 0),
        ("duplicate_paragraph_share", "天\n地\n\n玄\n\n天\n地", 1 / 3),
        ("duplicate_paragraph_share", "天\n地\n\n地\n天", 0),
        ("duplicate_paragraph_share", "天\r\n地\r\n\r\n天\r\n地", 1 / 2),
        ("duplicate_paragraph_share", "天\r\n地\r\n\r\n玄\r\n地", 0),
        ("regular_share", REGULATED, 1),
        ("regular_share", "大江东去，浪淘尽，千古风流人物。", 1 / 3),
        ("regular_share", "好，好，好", 0),  # clauses of 1 or 2 characters are no metre
    ],
)
def test_a_measure_gives_the_value_worked_by_hand(name: str, text: str, value: float) -> None:
    assert measured(f"line.{name}", text) == pytest.approx(value)


@pytest.mark.parametrize(
    "line",
    [
        "他走了。",
        "“走吧。”",
        "“走吧……”",
        "“真的吗？”",
        "「走吧。」",
        "『走吧！』",
        "“他说‘走吧。’”",
        "走吧——再见…",
        "（详情见附录二第三节）",  # complete in itself: the end mark stands behind the bracket, or nowhere
        "他只说了一句：“明天我们再来看看”",
        "注意事项如下；",
        "He left.",
        'He said "Go."',
        "Wait...",
        "Chinese with a full-width dot．",
        "价格是 3.14.",
    ],
)
def test_a_complete_line_is_ended(line: str) -> None:
    assert measured("line.ended_share", line) == 1


@pytest.mark.parametrize(
    "line",
    [
        "“走吧。”他说",
        "“走吧”",
        "新闻（图）",
        "首页",
        "天气很好，",
        "v1.2.3",
        "他说：",
        "www.example.com",
        "—",
    ],
)
def test_a_heading_a_label_and_a_broken_line_are_not(line: str) -> None:
    assert measured("line.ended_share", line) == 0


def test_ended_characters_weigh_lines_by_their_length() -> None:
    text = "首页\n他把信放在桌上。\n新闻"
    assert measured("line.ended_share", text) == pytest.approx(1 / 3)
    assert measured("line.ended_char_share", text) == pytest.approx(8 / 12)


@pytest.mark.parametrize(
    "text",
    [
        MENU,
        "首页 | 新闻中心 | 产品展示 | 联系我们",
        "首页｜新闻中心｜产品展示",
        "首页 新闻 体育 娱乐 财经 科技 汽车 房产",
        "1. 首页\n2. 新闻中心",
        "首页　新闻　体育",
    ],
)
def test_menus_are_made_of_labels_however_they_are_parted(text: str) -> None:
    assert measured("line.label_share", text) == 1


@pytest.mark.parametrize(
    "text",
    [
        PANGU,
        REGULATED,
        "他走了。\n她也走了。\n天黑了。",
        "“走吧。”\n“好。”",
        "今天很好.\n我们去公园.",
        "一个没有标点的长标题讲的是南方小镇的一家书店",
    ],
)
def test_prose_verse_and_dialogue_with_marks_are_not(text: str) -> None:
    assert measured("line.label_share", text) == 0


def test_labels_are_counted_in_han_characters() -> None:
    assert measured("line.label_share", "首页\n他把信放在了桌子上，走了。") == pytest.approx(2 / 13)
    assert measured("line.label_share", "Home | News | 首页 | 他把信放在了桌子上，走了。") == pytest.approx(
        2 / 13
    )
    assert measured("line.label_share", "Home | News") == 0


def test_headings_before_a_space_are_labels_so_recipes_must_tell_statutes_by_their_articles() -> None:
    article = "第一条 为了规范市场秩序，制定本法。"
    assert measured("line.label_share", article) == pytest.approx(3 / 15)
    assert measured("line.article_share", article) == 1


def test_verse_without_marks_looks_like_a_menu_so_recipes_must_tell_it_by_its_words() -> None:
    assert measured("line.label_share", VERSE) == measured("line.label_share", MENU) == 1
    assert measured("script.function_word_share", VERSE) > 0.12  # zh_web's verse genre
    assert measured("script.function_word_share", MENU) < 0.12


RESIDUE = '<p>他把信放在桌上。</p><p style="color:red">天黑了。</p>'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (RESIDUE, 1),
        ("&nbsp;&nbsp;&nbsp;天黑了", 1),
        (RESIDUE + "\n他把信放在桌上天黑了。", 1 / 2),
        ("用 <p> 标出段落，用 <div> 标出区块", 0),  # two marks, of which <div> says nothing: prose about HTML
        ("<strong>注意</strong><br/><b>安全</b>", 0),  # a way to write headings
        ("<p>\n<p>\n<p>\n正文没有标记", 0),  # code on lines of its own
        ("若a<b且c>d，则b<d且a<c", 0),
        ("</>", 0),
    ],
)
def test_residue_is_text_among_three_or_more_tags_on_a_line(text: str, value: float) -> None:
    assert measured("line.residue_share", text) == pytest.approx(value)
