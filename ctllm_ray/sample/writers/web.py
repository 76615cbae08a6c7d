"""Renders pages as HTML in several site templates and encodings, packed as WARC/1.1 response records.

The templates in `templates/` are of the kinds that Chinese crawls hold: news portal, blog, forum, a table
layout of 2003, wiki, government site. The declarations are as unreliable as real ones: gb2312 for GB18030
bytes, a header that contradicts the page, a stale meta tag, none at all. Each record is a gzip member of its
own, so readers can seek.
"""

from __future__ import annotations

import gzip
import html
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from string import Template

import opencc

from ctllm_ray.sample import FOLDER
from ctllm_ray.sample.writers.page import SamplePage


@dataclass(frozen=True)
class Encoding:
    """The codec of a page's bytes, and what the HTTP header and the meta tag declare (None: nothing)."""

    codec: str
    header: str | None
    meta: str | None


SIMPLIFIED = (
    Encoding("utf-8", "utf-8", "utf-8"),
    Encoding("gb18030", "gb2312", "gb2312"),
    Encoding("utf-8", None, "utf-8"),
    Encoding("gb18030", None, "gb2312"),
    Encoding("utf-8", "utf-8", None),
    Encoding("gb18030", "gbk", None),
    Encoding("utf-8", None, None),
    Encoding("gb18030", None, None),
    Encoding("gb18030", "utf-8", "gbk"),  # the server's default contradicts the page
    Encoding("utf-8", "gb2312", "utf-8"),
    Encoding("gb18030", "ISO-8859-1", None),  # an untouched server setting
    Encoding("utf-8", "utf-8", "gb2312"),  # transcoded, the meta tag forgotten
    Encoding("utf-8-sig", None, "gb2312"),  # a byte order mark decides
)
TRADITIONAL = (
    Encoding("big5", "big5", "big5"),
    Encoding("big5hkscs", "big5", None),
    Encoding("big5", None, "big5"),
    Encoding("big5hkscs", None, None),
    Encoding("big5", "utf-8", "big5"),
    Encoding("utf-8", "utf-8", "utf-8"),
)
TEMPLATES = {
    "news": "news", "statute": "government", "encyclopedia": "wiki", "forum": "forum", "fiction": "forum",
    "tech": "blog", "essay": "blog", "poetry": "table", "classical": "table", "english": "blog",
    "japanese": "blog",
}  # fmt: skip
_ANY_TEMPLATE = ("news", "blog", "table", "forum")
#: The words of the templates; Traditional pages get them converted.
_WORDS = {
    "w_login": "登录", "w_register": "注册", "w_home": "首页", "w_here": "当前位置", "w_body": "正文",
    "w_source": "来源", "w_fontsize": "字号", "w_big": "大", "w_mid": "中", "w_small": "小",
    "w_editor": "责任编辑",
    "w_share": "分享到", "w_prev": "上一篇", "w_next": "下一篇", "w_related": "相关阅读", "w_hot": "热门文章",
    "w_comments": "网友评论", "w_points": "积分", "w_category": "分类", "w_updated": "本页面最后修订于",
    "w_search": "搜索", "w_index": "索引号", "w_date": "发布日期", "w_print": "打印本页",
    "w_close": "关闭窗口",
}  # fmt: skip
_SITES = ("临江在线", "白石之窗", "云溪文摘", "青禾生活网", "海棠社区", "老街月刊")
_MENU = ("新闻", "财经", "体育", "文化", "旅游", "图片", "专题", "论坛")
_EDITORS = ("周晓", "林一诺", "admin", "顾南")
_COMMENTS = ("沙发！", "写得真好，收藏了。", "路过，顶一下")
_FOOTER = (
    '<p><a href="/about">关于我们</a> | <a href="/contact">联系我们</a> | <a href="/law">法律声明</a> | '
    '<a href="/map">网站地图</a></p><p>版权所有 &copy; 2008-2024 {site} 未经许可不得转载</p>'
    "<p>某ICP备00000000号-1 公网安备 00000000000000号</p>"
)
_WARC_DATE = "2024-05-01T00:00:00Z"


def encodings(pages: Sequence[SamplePage]) -> list[Encoding]:
    """The encoding of each page: those of its script in turn."""
    turns = {"traditional": cycle(TRADITIONAL), "japanese": cycle(SIMPLIFIED[:1])}
    simplified = cycle(SIMPLIFIED)
    return [next(turns.get(page.genre or "", simplified)) for page in pages]


def archive(pages: Sequence[SamplePage]) -> bytes:
    """A .warc.gz file: an info record and a response for every page."""
    info = b"software: ctllm-ray sample\r\nformat: WARC File Format 1.1\r\n"
    members = [_member("warcinfo", "urn:sample", "application/warc-fields", info)]
    titles = [page.title for page in pages]
    for number, (page, encoding) in enumerate(zip(pages, encodings(pages), strict=True)):
        others = [titles[(number + step) % len(titles)] for step in (5, 17, 29, 41)]
        members.append(_response(page, encoding, number, others))
    return b"".join(members)


def _response(page: SamplePage, encoding: Encoding, number: int, others: Sequence[str]) -> bytes:
    markup = _markup(page, encoding, number, others)
    body = markup.encode(encoding.codec, errors="xmlcharrefreplace")
    charset = f"; charset={encoding.header}" if encoding.header else ""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html{charset}\r\nContent-Length: {len(body)}\r\n\r\n"
    return _member("response", page.url, "application/http; msgtype=response", head.encode() + body)


def _member(kind: str, url: str, content_type: str, block: bytes) -> bytes:
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<{uuid.uuid5(uuid.NAMESPACE_URL, url).urn}>",
        "WARC-Target-URI": url,
        "WARC-Date": _WARC_DATE,
        "Content-Type": content_type,
        "Content-Length": len(block),
    }
    if kind == "warcinfo":
        del fields["WARC-Target-URI"]
    lines = ["WARC/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return gzip.compress("\r\n".join(lines).encode() + block + b"\r\n\r\n", mtime=0)


def _markup(page: SamplePage, encoding: Encoding, number: int, others: Sequence[str]) -> str:
    """The HTML of a page: its text in the template of its genre, with surrounding page furniture."""
    site = _SITES[number % len(_SITES)]
    words = _WORDS | {
        "site": site,
        "editor": _EDITORS[number % len(_EDITORS)],
        "editor_id": f"{number:05d}",
        "section": _MENU[number % len(_MENU)],
        "nav": "".join(f'<li><a href="/c{i}/">{name}</a></li>' for i, name in enumerate(_MENU)),
        "comments": "".join(f"<li>{text}</li>" for text in _COMMENTS[: number % 4]),
        "footer": _FOOTER.format(site=site),
    }
    if page.genre == "traditional":
        words = {name: _traditional().convert(value) for name, value in words.items()}
    return _template(TEMPLATES.get(page.genre or "", _ANY_TEMPLATE[number % len(_ANY_TEMPLATE)])).substitute(
        words,
        lang="zh-TW" if page.genre == "traditional" else "zh-CN",
        meta=_meta(encoding.meta),
        title=html.escape(page.title),
        date=page.date,
        paragraphs=_paragraphs(page.text),
        breaks="<br>\n".join("　　" + html.escape(line, quote=False) for line in page.text.split("\n")),
        related="".join(
            f'<li><a href="/r{i}.html">{html.escape(other)}</a></li>' for i, other in enumerate(others)
        ),
        related_1=html.escape(others[0]),
        related_2=html.escape(others[1]),
    )


def _meta(charset: str | None) -> str:
    return f'<meta http-equiv="Content-Type" content="text/html; charset={charset}">' if charset else ""


def _paragraphs(text: str) -> str:
    """Paragraph elements; text between lines of three backticks becomes `pre`."""
    blocks = text.split("```")
    parts = []
    for i, block in enumerate(blocks):
        if i % 2:
            parts.append(f"<pre><code>{html.escape(block.partition(chr(10))[2], quote=False)}</code></pre>")
        else:
            parts += [f"<p>{html.escape(line, quote=False)}</p>" for line in _lines(block)]
    return "\n".join(parts)


def _lines(block: str) -> Iterable[str]:
    return (line for line in block.split("\n") if line.strip())


@cache
def _template(name: str) -> Template:
    return Template((FOLDER / "templates" / f"{name}.html").read_text(encoding="utf-8"))


@cache
def _traditional() -> opencc.OpenCC:
    return opencc.OpenCC("s2twp")
