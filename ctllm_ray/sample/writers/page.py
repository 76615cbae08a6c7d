"""A page of the sample, and the truth about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ctllm_ray.sample.writers.stock import Text

#: Hosts by genre, below the reserved top-level name .example; anything else is on a spam host.
_HOSTS = {
    "news": "news.linjiang", "essay": "wen.yunxi", "science": "kepu.baishi", "howto": "shenghuo.qinghe",
    "forum": "bbs.haitang", "review": "dianping.guihua", "fiction": "gushi.banshan",
    "encyclopedia": "baike.baishi",
    "statute": "www.linjiang-gov", "tech": "blog.shiqiao", "travel": "you.yaowan", "interview": "ren.mishi",
    "classical": "guji.dongmen", "poetry": "shi.changqiao", "traditional": "www.laojie",
    "english": "notes.village",
    "mixed": "liuxue.nanhu", "japanese": "machi.ekimae", "health": "jiankang.hexi", "money": "licai.chengbei",
    "school": "jiaoyu.pingan", "history": "shihua.dongmen", "letter": "xin.yunxi",
}  # fmt: skip


@dataclass(frozen=True)
class SamplePage:
    """A page: what a crawl would hold (`url` to `text`) and the truth about it."""

    url: str
    date: str  # YYYY-MM-DD
    title: str
    text: str
    kind: Literal["clean", "noise", "copy"]
    genre: str | None = None  # of the clean text it is made of
    defect: str | None = None  # of noise: what is wrong; of a copy: the edit
    copy_of: str | None = None  # the url of the original
    stock: str | None = None  # key of the clean text it is made of

    def truth(self, file: str, charset: str) -> dict[str, str | None]:
        """The row of truth.jsonl."""
        names = ("kind", "genre", "defect", "copy_of", "stock")
        return {"url": self.url, "file": file, "charset": charset} | {
            name: getattr(self, name) for name in names
        }


def clean_page(text: Text) -> SamplePage:
    """The page on which a clean text was first published."""
    url = f"https://{_HOSTS[text.kind]}.example/{2012 + text.number % 13}/{text.kind}-{text.number:04d}.html"
    return SamplePage(url, _date(text), text.title, text.body, "clean", genre=text.kind, stock=text.key)


def copied_page(original: SamplePage, text: Text, edit: str, body: str) -> SamplePage:
    """A copy on a scraper's host."""
    url = f"http://www.caiji{len(edit)}.example/{edit}/{text.kind}{text.number}.htm"
    return SamplePage(
        url,
        _date(text),
        text.title,
        body,
        "copy",
        genre=text.kind,
        defect=edit,
        copy_of=original.url,
        stock=text.key,
    )


def damaged_page(text: Text, defect: str, body: str) -> SamplePage:
    """A clean text that was damaged before the crawl; it has no other page in the sample."""
    return SamplePage(
        clean_page(text).url,
        _date(text),
        text.title,
        body,
        "noise",
        genre=text.kind,
        defect=defect,
        stock=text.key,
    )


def unwanted_page(number: int, title: str, body: str, defect: str) -> SamplePage:
    """A page without any clean text in it."""
    url = f"http://{defect.replace('_', '-')}.spam{number % 5}.example/view.php?id={number}"
    return SamplePage(
        url,
        f"20{10 + number % 15}-{1 + number % 12:02d}-{1 + number % 28:02d}",
        title,
        body,
        "noise",
        defect=defect,
    )


def _date(text: Text) -> str:
    return f"{2012 + text.number % 13}-{1 + text.number * 5 % 12:02d}-{1 + text.number * 11 % 28:02d}"
