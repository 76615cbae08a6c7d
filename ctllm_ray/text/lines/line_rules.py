"""Rules that remove whole lines, by name: what a recipe may list under `cut`, and the default set.

A rule sees one line without surrounding spaces. Its cues are words (case-insensitive) of which every line
that it cuts contains one. Lines without a cue are never examined, so clean text costs almost nothing. The
default set is strict: it keeps dialogue, verse, headings, lists and sentences about JavaScript, gambling or
copyright (see page_lines.py, adverts.py).

CT-LLM describes line rules of its own, after T5's, which its released code never calls. They are here under
names of their own, `no_terminal_punctuation`, `javascript`, `fewer_than_3_words` and `bad_word`, outside the
default set: they delete headings, verse and dialogue.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.resolve import nearest
from ctllm_ray.text.html import links
from ctllm_ray.text.lines import adverts, page_lines
from ctllm_ray.text.lines.line_cues import ANY_LENGTH, Cues, cues, suspects

_STARTS_WITH_LINK = re.compile(
    r"[\s<(（\[\]【*•·>!\-]{0,8}(?:https?://|www\.)[^|\n]*$", re.IGNORECASE
)  # no comment, no cell
_BAR = re.compile(r"[|｜丨]")
_NOT_A_LABEL = re.compile(r"[。；，]|\d\.\d|---|[={}]")


class LineRule(NamedTuple):
    """`cuts` is true for a line to remove. Such a line contains
    one of `cues`, if any, and has at most `longest` characters."""

    cuts: Callable[[str], object]
    cues: tuple[str, ...]
    longest: int


class Rules(NamedTuple):
    """The rules of a recipe, in the order in which they are applied."""

    by_name: dict[str, LineRule]
    cues: Cues


def bare_link(line: str) -> bool:
    """https://example.com/a.html, alone on its line or
    beside others; "[1]: https://..." and "via: ..." stay."""
    if not _STARTS_WITH_LINK.match(line):
        return False
    return not any(c.isalnum() for c in links.without_links(line))


def link_bar(line: str) -> bool:
    """首页 | 新闻 | 图片 | 评论 | 娱乐 | 财经 | 军事 | 体育: eight or more short labels, no sentence, no table row."""
    labels = [label.strip() for label in _BAR.split(line)]
    if len(labels) < 8 or not labels[0] or not labels[-1]:  # tables begin or end their rows with a bar
        return False
    short = len(line) <= 12 * len(labels) and max(map(len, labels)) <= 24
    return short and not _NOT_A_LABEL.search(line)


_TERMINAL = tuple("。！？…；.!?;”’」』）)\"'~～")


def no_terminal_punctuation(line: str) -> bool:
    """Any line that ends without punctuation: headings, verse and list items too."""
    return not line.endswith(_TERMINAL)


def javascript(line: str) -> bool:
    """Any line with the word javascript in it, articles about it too."""
    return "javascript" in line.lower()


def fewer_than_3_words(line: str) -> bool:
    """Lines of fewer than three words, a Chinese word counted
    as 1.6 characters (jieba's mean on running text)."""
    han = len(re.findall(r"[\u3400-\u9fff]", line))
    return han / 1.6 + len(re.findall(r"[A-Za-z0-9]+", line)) < 3


def bad_words(words: Iterable[str]) -> LineRule:
    """The rule `bad_word` over a list: any line that contains one of the words, in any case."""
    pattern = re.compile(
        "|".join(map(re.escape, sorted(words, key=len, reverse=True))) or r"(?!)", re.IGNORECASE
    )
    return _rule(pattern.search, ANY_LENGTH)


def _rule(cuts: Callable[[str], object], longest: int, *cues: str) -> LineRule:
    return LineRule(cuts, tuple(" ".join(cues).split()), longest)


#: The set that `zh_web` uses, in the order in which the rules are applied.
DEFAULT: dict[str, LineRule] = {
    "controls": _rule(
        page_lines.controls,
        page_lines.LONGEST,
        "登录 登錄 登陆 登入 注册 註冊 首页 首頁 上一 下一 更多 全文 展开 展開 分享 收藏 打印 列印 点击 點擊 "
        "返回 回到",
        "回顶 回頂 字号 字體 字体 字型 字號 原文 大图 详情 继续阅读 关闭 窗口 視窗 忘记密码 忘記密碼 "
        "网站地图 评论",
        "举报 关注 我们 我要 隐私 声明 微信 微博 客户端 more top skip",
        " ".join(f"{digit}{page}" for digit in range(10) for page in "页頁"),
    ),
    "breadcrumb": _rule(page_lines.breadcrumb, 150, "位置 首页 首頁 主页 频道 home"),
    "pager": _rule(page_lines.pager, 100, "上一 下一 前一 后一 後一 previous next"),
    "byline": _rule(
        page_lines.byline,
        page_lines.LONGEST,
        "编辑 編輯 责编 编校 来源 稿源 记者 发布 点击 阅读 浏览 访问量 人气 评论 时间 字号",
    ),
    "copyright_line": _rule(
        page_lines.copyright_line,
        page_lines.LONGEST,
        "icp 网安备 reserved copyright © (c) 许可证 版权 版權 声明 侵权 侵犯 举报",
    ),
    "related_heading": _rule(
        page_lines.related_heading,
        30,
        "相关 热门 最新 猜你 猜您 大家都在 推荐 排行 网友评论 精彩 友情链接 换一 更多",
    ),
    "notice": _rule(
        page_lines.notice,
        page_lines.LONGEST,
        "浏览器 javascript cookie loading wait 脚本 加载 载入 读取 登录 登陆 对不起 抱歉 404 同意 接受",
    ),
    "lorem_ipsum": LineRule(page_lines.lorem_ipsum, ("lorem ipsum", "dolor sit amet"), ANY_LENGTH),
    "follow_us": _rule(adverts.follow_us, adverts.ADVERT_LONGEST, "扫一扫 扫码 扫描 长按 识别 公众号"),
    "advert": _rule(
        adverts.advert,
        adverts.ADVERT_LONGEST,
        "广告 推广 赞助商 advertisement 点击 免费 限时 优惠券 新人专享 完整版 会员 立即 热线 客服",
        "微信 薇信 威信 qq 扣扣 vx",
    ),
    "injected_spam": LineRule(adverts.injected_spam, adverts.VICE_CUES, adverts.SPAM_LONGEST),
    "bare_link": _rule(bare_link, ANY_LENGTH, "http:// https:// www."),
    "link_bar": _rule(link_bar, ANY_LENGTH, "| ｜ 丨"),
}

#: Outside the default set: what CT-LLM describes.
DESCRIBED: dict[str, LineRule] = {
    "no_terminal_punctuation": _rule(no_terminal_punctuation, ANY_LENGTH),
    "javascript": _rule(javascript, ANY_LENGTH, "javascript"),
    "fewer_than_3_words": _rule(fewer_than_3_words, ANY_LENGTH),
}


def select(names: Iterable[str], words: Iterable[str] = ()) -> Rules:
    """The named rules with their cue tables. Raises `RecipeError` with the
    nearest name for an unknown one."""
    known = DEFAULT | DESCRIBED | {"bad_word": bad_words(words)}
    for name in names:
        if name not in known:
            raise RecipeError(f"unknown line rule {name!r}", where="lines.cut", remedy=nearest(name, known))
    rules = {name: known[name] for name in names}
    return Rules(
        rules, cues([rule.cues for rule in rules.values()], [rule.longest for rule in rules.values()])
    )


def cuts(texts: pa.Array, rules: Rules) -> dict[int, dict[int, str]]:
    """The lines to remove from the texts (a string array without nulls): for each row, the
    rule's name by line number."""
    names, tests = list(rules.by_name), [rule.cuts for rule in rules.by_name.values()]
    results: dict[int, dict[int, str]] = {}
    row, lines = -1, [""]
    for suspect, number, mask in zip(*map(np.ndarray.tolist, suspects(texts, rules.cues)), strict=True):
        if suspect != row:
            row, lines = suspect, texts[suspect].as_py().split("\n")
        line = lines[number].strip()
        if name := next((names[k] for k, test in enumerate(tests) if mask >> k & 1 and test(line)), ""):
            results.setdefault(row, {})[number] = name
    return results
