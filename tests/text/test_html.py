"""Main text from HTML: hand-made pages for each kind of furniture, hostile pages, and floors on the labelled
ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

from ctllm_ray.text.html import feeds, main_content
from ctllm_ray.text.lines import furniture

PROSE = [
    "春天的时候，村口的老槐树下总坐着几位老人，他们说起从前的事情，声音不高，却很清楚。",
    "那一年的雨下得特别久，河水漫过了石桥，孩子们只好绕路去上学，鞋子总是湿的。",
    "后来桥修好了，路也宽了，可是大家还是常常提起那场雨，以及雨里撑着伞来接人的母亲。",
]
BODY = "".join(f"<p>{line}</p>" for line in PROSE)


def page(before: str = "", after: str = "", body: str = BODY) -> str:
    return (
        f"<html><head><title>老槐树_乡土网</title></head><body>{before}<div>{body}</div>{after}</body></html>"
    )


def lines(source: str) -> list[str]:
    return main_content.extract(source).text.split("\n")


FURNITURE = [
    "当前位置：首页 > 文学 > 正文",
    "您的位置：首页 &gt; 正文",
    "首页>新闻>正文",
    "首页 » 散文 » 乡土",
    "上一篇：雨夜",
    "下一篇：没有了",
    "【上一篇】雨夜归人",
    "责任编辑：张三",
    "（责任编辑：张三 李四）",
    "責任編輯：王五",
    "编辑：NF055 来源：乡土网",
    "分享到：微信 QQ空间 新浪微博",
    "【字号：大 中 小】",
    "字号：[大][中][小]",
    "点击次数：1024",
    "来源：都市频道　阅读：39992",
    "2015-07-04 07:55:23　来源: 新文化报(吉林)",
    "发布时间：2019-09-07 09:27 浏览：31次",
    "李光斗 2015-07-03 11:31:09 0人参与评论",
    "Copyright © 2010-2022 都市频道 版权所有 京ICP备49331616号",
    "京公网安备 11010802020134号 许可证编号：1101080",
    "违法和不良信息举报电话：010-21705744",
    "版權所有 乡土网 轉載必究",
    "登录 | 注册",
    "返回顶部",
    "设为首页 收藏本站",
    "用微信扫描二维码",
    "分享至好友和朋友圈",
    "网友评论仅供其表达个人看法，并不表明本站立场。",
    "相关阅读",
]


@pytest.mark.parametrize("line", FURNITURE)
def test_a_line_of_furniture_goes_at_the_head_and_at_the_tail(line: str) -> None:
    assert lines(page(before=f"<div>{line}</div>")) == PROSE
    assert lines(page(after=f"<div>{line}</div>")) == PROSE
    assert lines(page(body=f"<p>{line}</p>{BODY}<p>{line}</p>")) == PROSE


@pytest.mark.parametrize(
    "sentence",
    [
        "责任编辑认为，这一稿已经可以发表，于是当天下午就送到了印刷厂。",
        "他在当前位置：也就是山脚下的那座小屋旁边，等了整整一个上午。",
        "上一篇文章里我们谈到了这条河的来历，这一次来谈谈河上的桥。",
        "请把这篇文章分享到朋友圈，让更多的人知道老槐树的故事。",
        "版权所有者有权许可他人使用作品，并由此获得报酬。",
        "这本书的阅读量：去年是三千人，今年据说翻了一番，达到六千人。",
        "来源：这个词在水文学里指的是河流开始的地方，并不神秘。",
        "登录之后，你会看到自己的名字，以及上一次离开的时间。",
        "相关阅读表明，孩子们在十岁以前读的书影响他们一生。",
    ],
)
def test_a_sentence_of_prose_that_mentions_furniture_stays(sentence: str) -> None:
    assert lines(page(body=f"<p>{sentence}</p>{BODY}<p>{sentence}</p>")) == [sentence, *PROSE, sentence]


@pytest.mark.parametrize(
    "line", ["微信", "更多", "相关新闻", "记者：您好", "时间：9月26日上午9:00", "2015年7月4日"]
)
def test_a_short_line_inside_the_body_stays(line: str) -> None:
    assert lines(page(body=f"<p>{PROSE[0]}</p><p>{line}</p><p>{PROSE[1]}</p>")) == [PROSE[0], line, PROSE[1]]


def test_a_list_of_related_pages_ends_the_page() -> None:
    related = "<h3>相关推荐</h3><ul>" + "<li>第二个国贸已初具雏形</li><li>高管打鼓舞狮</li>" * 3 + "</ul>"
    assert lines(page(after=related)) == PROSE


def test_a_list_of_links_goes_and_a_link_within_a_sentence_stays() -> None:
    menu = "<ul>" + "".join(f"<li><a href='/{i}'>栏目{i}</a></li>" for i in range(20)) + "</ul>"
    body = BODY.replace("老槐树", "<a href='/t'>老槐树</a>")
    assert lines(page(before=menu, after=menu, body=body)) == PROSE


def test_punctuation_between_two_links_stays() -> None:
    body = (
        BODY
        + "<p>将对<a href='/a'>沪深</a>、<a href='/b'>上证</a>、<a href='/c'>中证</a>三种合约按委托量收取费用。</p>"
    )
    assert lines(page(body=body))[-1] == "将对沪深、上证、中证三种合约按委托量收取费用。"


def test_the_editors_credit_at_the_end_of_a_paragraph_goes() -> None:
    body = BODY.removesuffix("</p>") + "（责任编辑：张三）</p>"
    assert lines(page(body=body)) == PROSE


def test_the_headline_is_the_title_and_not_a_line_of_the_text() -> None:
    found = main_content.extract(page(before="<h1>老槐树</h1><div>来源：乡土网　阅读：12</div>"))
    assert (found.title, found.text.split("\n")) == ("老槐树", PROSE)


def test_without_a_headline_the_title_is_that_of_the_page_without_the_site() -> None:
    assert (
        main_content.extract(page().replace("老槐树_乡土网", "老槐树的故事 - 乡土网")).title == "老槐树的故事"
    )


def test_a_page_that_is_only_its_headline_keeps_it() -> None:
    source = f"<title>{PROSE[0]}</title><body><p>{PROSE[0]}</p></body>"
    assert main_content.extract(source).text == PROSE[0]


def test_a_poem_without_punctuation_and_its_author_stay() -> None:
    poem = ["静夜思", "李白", "床前明月光", "疑是地上霜", "举头望明月", "低头思故乡"]
    source = f"<title>静夜思_古诗网</title><h1>静夜思</h1>{''.join(f'<p>{line}</p>' for line in poem)}"
    assert lines(source) == poem


def test_the_signature_under_a_notice_stays() -> None:
    signature = ["中国证券业协会", "2015年7月4日"]
    assert lines(page(body=BODY + "".join(f"<p>{line}</p>" for line in signature))) == PROSE + signature


def test_code_keeps_its_indentation() -> None:
    code = "def f(x):\n    return x &lt; 1"
    body = f"<p>{PROSE[0]}</p><pre>{code}</pre><p>{PROSE[1]}</p>"
    assert lines(page(body=body)) == [PROSE[0], "def f(x):", "    return x < 1", PROSE[1]]


def test_an_unclosed_link_does_not_swallow_the_body() -> None:
    assert lines(page(before="<a href='/x'><div>")) == PROSE


def test_hidden_elements_are_left_out() -> None:
    hidden = "<div style='display:none'>隐藏的一段文字，写给搜索引擎看的，谁也看不见它。</div>"
    assert lines(page(after=hidden)) == PROSE


@pytest.mark.parametrize(
    "source", ["", " ", "<", "<html>", "<!-- ", "\0", "<p></p>", "&#xD800;&#0;", '<a href="', "<p"]
)
def test_an_empty_or_broken_page_gives_no_error(source: str) -> None:
    main_content.extract(source)


def test_nul_bytes_do_not_end_the_text() -> None:
    assert lines(page(body=BODY.replace("老人", "老\0人"))) == PROSE


def test_a_megabyte_of_script_is_not_text() -> None:
    script = f"<script>var a='{'春天，' * 400_000}';</script>"
    assert lines(page(before=script, after=script)) == PROSE


@pytest.mark.parametrize("engine", ["stretches", "resiliparse", "trafilatura"])
def test_100_000_nested_tags_neither_crash_nor_hang(engine: str) -> None:
    # in a process of its own: a C library that runs out of stack takes the process with it
    program = f"""
from ctllm_ray.text.html import extract
for tag in ("div", "b", "ul><li", "blockquote", "a href=x", "font", "x"):
    found = extract(f"<{{tag}}>" * 100_000 + "<p>{PROSE[0]}</p>", engine={engine!r})
    assert found.text in ("", {PROSE[0]!r}), (tag, found.text[:100])
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_every_engine_reads_the_same_simple_page() -> None:
    for engine in ("stretches", "resiliparse", "trafilatura"):
        assert main_content.extract(page(), engine=engine).text.split("\n")[-2:] == PROSE[-2:]


def test_trimming_keeps_the_order_and_adds_nothing() -> None:
    given = ["登录", PROSE[0], "责任编辑：张三", PROSE[1], "返回顶部"]
    assert furniture.trim(given) == [PROSE[0], PROSE[1]]


RSS = f"""<?xml version="1.0" encoding="gb2312"?><rss version="2.0"><channel><title>乡土</title>
<item><title>老槐树</title><description><![CDATA[<p>{PROSE[0]}</p><p>{PROSE[1]}</p>]]></description></item>
<item><title>雨</title><description>{PROSE[2]}</description></item></channel></rss>"""


def test_a_feed_gives_the_titles_and_texts_of_its_items() -> None:
    assert feeds.is_feed(RSS)
    assert feeds.extract(RSS).title == "乡土"
    assert feeds.extract(RSS).text.split("\n") == ["老槐树", PROSE[0], PROSE[1], "雨", PROSE[2]]


def test_a_broken_feed_gives_its_text() -> None:
    broken = RSS.removesuffix("</channel></rss>").replace("<![CDATA[", "").replace("]]>", "")
    assert all(line in feeds.extract(broken).text for line in PROSE)


def test_an_entity_bomb_is_refused() -> None:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    bomb = f'<!DOCTYPE rss [<!ENTITY e0 "春">{entities}]><rss><channel><item><title>&e11;</title></item></channel></rss>'  # noqa: E501
    assert len(feeds.extract(bomb).text) < 10_000


def test_floors_on_the_real_labelled_pages(shared_data: Path) -> None:
    from benchmarks.extraction import _RELATED_LINK, Labelled, real, scores

    pages = real(shared_data)
    precision, recall, f1 = scores(pages, lambda source: main_content.extract(source).text)
    assert (precision > 0.96, recall > 0.87, f1 > 0.91) == (True, True, True)
    # without the dated link lists that the labelling program took for body
    pages = [Labelled(p.html, _RELATED_LINK.sub("", p.gold)) for p in pages]
    precision, recall, f1 = scores(pages, lambda source: main_content.extract(source).text)
    assert (precision > 0.96, recall > 0.97, f1 > 0.965) == (True, True, True)


def test_floors_on_the_rendered_pages(shared_data: Path) -> None:
    from benchmarks.extraction import rendered, score

    results = [score(p.gold, main_content.extract(p.html).text) for p in rendered(shared_data, every=4)]
    assert mean(r[0] for r in results) > 0.999
    assert mean(r[1] for r in results) > 0.99
    assert mean(r[2] for r in results) > 0.99
