"""Parses the mark (1 to 10) in a judge's verdict with a strict grammar: the judge's last own statement.

    verdict  = lines; the last one that is the judge's own ends with a clause that is nothing but a mark
    mark     = "[[" number ["分" | "/10"] "]]", also as ［［9］］ and 【【9】】; or "评分：" number ("分" | "/10")
    number   = 9, 8.5, ９, 八, 八点五, 十
    clause   = [words such as 因此 or 综合来看] [评分 or such] mark, up to the end of the line

Quotations, parentheses and examples are not the judge's own statement. A number that occurs in the judged
text as a mark, in any form, does not count either: the judge may have repeated it. So a doubtful verdict has
no mark. The request is then repeated with a code (judge_prompt.py) that the judged text cannot contain; a
mark after this code is the judge's.
"""

from __future__ import annotations

import re
import unicodedata

LEAST, MOST = 1.0, 10.0
GRAMMAR = 3  # version of the grammar; 1 took the last [[number]] anywhere, 2 did not allow bold type

_DIGITS = {
    "零": 0,
    "一": 1,
    "二": 2,
    "两": 2,
    "三": 3,
    "四": 4,
    "五": 5,
    "六": 6,
    "七": 7,
    "八": 8,
    "九": 9,
    "十": 10,
}
_NUMBER = r"\d+(?:\.\d+)?|[零一二两三四五六七八九十](?:点[零一二三四五六七八九])?"
_UNIT = r"(?:分|/\s*10)"
BRACKETED = rf"\[\[\s*(?P<bracketed>{_NUMBER})\s*{_UNIT}?\s*\]\]"
_NAMED = r"(?:评分|得分|分数|打分|给分|评价|总分|rating|score|mark)"
_SAID = rf"{_NAMED}\s*(?:是|为|is)?\s*:?\s*(?P<said>{_NUMBER})\s*{_UNIT}"
_SHOWN = re.compile(rf"\[\s*\[\s*(?P<bracketed>{_NUMBER})\s*{_UNIT}?\s*\]\s*\]|{_SAID}", re.I)
_LEAD = (
    r"(?:(?:因此|所以|故|综上(?:所述)?|综合(?:来看|考虑|以上)?|总体(?:而言|来看)?|总的来说|最后|最终|therefore|overall|finally|"
    r"如下|我|给出?|给予|打|该|这个|此|本|助手|回答|的|评为|总体|综合|整体|my|the|final|overall|i|rate|it|give)\s*)*"
)
_CLAUSE = re.compile(
    rf"{_LEAD}(?:{_NAMED}\s*(?:是|为|is)?)?\s*(?:#(?P<code>\w+))?\s*:?\s*{BRACKETED}\s*{_UNIT}?|{_LEAD}{_SAID}",
    re.I,
)
_QUOTES = (("“", "”"), ("‘", "’"), ("「", "」"), ("『", "』"), ('"', '"'), ("`", "`"))
_PARENTHESES = re.compile(r"\([^()\n]*\)")
_EXAMPLE = re.compile(
    r"[,。、;:\s]*(?:例如|比如|譬如|示例|格式(?:如下|为|如)?\s*:|for example|e\.g\.).*", re.I
)
_BRACKETS = str.maketrans("【】", "[]")
_UNSEEN = re.compile("[\u200b-\u200f\u2060\ufeff]|\\*+|__+")  # ignored characters, including bold marks
_MARKUP = " \t_#-—=|.。!！~…"


def read_mark(verdict: str, judged: str = "", code: str = "") -> float | None:
    """The mark; None if there is none that is certainly the judge's own and on the scale.

    `judged` is the text shown to the judge. A mark after `code` counts whatever `judged` contains.
    """
    number = read_number(verdict, judged, code)
    return number if number is not None and LEAST <= number <= MOST else None


def read_number(verdict: str, judged: str = "", code: str = "") -> float | None:
    """Like `read_mark`, on the scale or not."""
    if code and (coded := _last_clause(_plain(verdict))) and (coded["code"] or "").lower() == code:
        return _value(coded)
    own = _own_text(verdict)
    match = _last_clause(own)
    if not match or match["code"] or len({_value(each) for each in _SHOWN.finditer(_last_line(own))}) > 1:
        return None
    return None if _value(match) in map(_value, _SHOWN.finditer(_plain(judged))) else _value(match)


def _last_line(text: str) -> str:
    lines = [line for line in text.split("\n") if line.strip(_MARKUP)]
    return lines[-1].strip(_MARKUP) if lines else ""


def _last_clause(text: str) -> re.Match[str] | None:
    """The mark at the end of the last line, if only words that introduce a mark stand before it."""
    return _CLAUSE.fullmatch(re.split(r"[。!?;,]|\.\s", _last_line(text))[-1].strip(_MARKUP))


def _own_text(verdict: str) -> str:
    """The verdict without thoughts, quotations, parentheses and examples."""
    _, closed, said = verdict.rpartition("</think>")
    if "<think>" in said:  # it was cut off in its thoughts
        return ""
    text = re.sub(r"```.*?(```|\Z)", " ", _plain(said if closed else verdict), flags=re.DOTALL)
    for opening, closing in _QUOTES:
        text = re.sub(f"{opening}[^{closing}]*({closing}|\\Z)", " ", text)
    lines = (line for line in text.split("\n") if not line.lstrip().startswith(">"))
    return "\n".join(_EXAMPLE.sub("", _PARENTHESES.sub("", line)) for line in lines)


def _plain(text: str) -> str:
    """Full-width forms made plain, without bold type: ［［９］］, 【【9】】 and **[[9]]** become [[9]]."""
    return _UNSEEN.sub("", unicodedata.normalize("NFKC", text)).translate(_BRACKETS).replace("\r", "\n")


def _value(match: re.Match[str]) -> float:
    number = match["bracketed"] or match["said"]
    whole, _, rest = number.partition("点")
    return float(number) if number[0].isdecimal() else _DIGITS[whole] + (_DIGITS[rest] / 10 if rest else 0.0)
