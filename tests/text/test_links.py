"""Link removal: what is a link, and what only looks like one."""

from __future__ import annotations

import pyarrow as pa
import pytest

from ctllm_ray.text.html.links import remove, without_links


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("详见http://a.com/b?c=1&d=2，下文", "详见，下文"),
        ("请访问baidu.com查看", "请访问查看"),  # the released filter misses what touches a Chinese character
        ("看www.gov.cn。", "看。"),
        ("官网（https://x.org/a_(b)）上线", "官网上线"),
        ("[词条](http://a.com/x)之后", "[词条]之后"),
        ("see http://a.com/x. Then", "see . Then"),
        ("新闻:https://news.cn:8080/a/1234,1.html\n完", "新闻:\n完"),
        ("博客tfantina.github.io的", "博客的"),
        ("加t.me/abcdef群", "加群"),
        ("到bbs88.cc玩", "到玩"),
        ("http://10.0.0.1/index.html", ""),
        ("a.comhttp://b.com/c中文", "中文"),
        ("ＷＷＷ不是，WWW.ABC.COM是", "ＷＷＷ不是，是"),
        ("one(http://a.com)two", "one two"),
    ],
)
def test_links_go(text: str, left: str) -> None:
    assert without_links(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "升级到v1.2.3.4，主机10.0.0.1:8080，圆周率3.14",  # the released filter eats these
        "main.py、index.html、package.json、README.md、libfoo.so.1、main.cc、data.tar.gz",
        "邮箱zhang.san@mail.163.com",
        "ASP.NET与vb.net，Node.js",
        "q1.top() window.top self.id java.net.URL foo.com.txt",
        "No.1.第二",
        "时间12:30。比分3:2",
        "U.S.A.",
    ],
)
def test_what_only_looks_like_a_link_stays(text: str) -> None:
    assert without_links(text) == text


def test_texts_without_links_come_back_as_the_same_array() -> None:
    texts = pa.array(["没有链接。", "v1.2.3", "main.py"])
    assert remove(texts) is texts


def test_only_rows_with_links_change() -> None:
    assert remove(pa.array(["甲", "乙 www.a.com", "丙.md"])).to_pylist() == ["甲", "乙 ", "丙.md"]


@pytest.mark.parametrize(
    "text", ["a." * 20000, "http://" * 5000, "(" * 20000, "aaaa" * 20000, "www." * 10000]
)
def test_hostile_text_is_read_in_linear_time(text: str) -> None:
    without_links(text)
