"""Measures contact details and links per 1000 characters: a sign of advertisement.

A contact id is a number or name that a cue announces (QQ, 微信 and its disguises, 电话, 加群 ...), or a number that
is a telephone by its form alone: a mobile, a landline with its area code set off, a 400 or 800 number.
Full-width digits, separators and masks (138****1234, xxxxxxx) count. Cues are found by the automaton of
`lexicon`, so 薇★信 is one. Dates, prices, versions, article numbers, ISBN and IP addresses have neither the cue
nor the form.

Two passes of C code: about 100 MB/s of Chinese UTF-8 on one
core. This is no PII finder: it counts, it does not cut.
"""

from __future__ import annotations

import re
from functools import cache

from ctllm_ray.text.lexicon import Lexicon, build

_CUES = {
    "phone": """电话 手机 手机号 热线 专线 致电 来电 拨打 请拨 垂询 详情 客服 咨询 详询 订购 预约 联系 联系人 联系方式
        传真 tel 电联 短信 回电 座机""",
    "qq": "qq qq号 qq群 q群 扣扣 扣群 叩叩 企鹅号 企鹅群 加群 群号 进群 交流群 vip群 加q",
    "wechat": """微信 微信号 微信群 v信 威信号 徽信 维信 微信公众号 vx wx weixin wechat 加微 加v 加薇 telegram
        whatsapp 飞机号""",
}

_JOIN = r"[号码號碼为為是加\s:：+＋(（\[【/、,，|]{0,6}(?:[+＋]?86[-—－ ]?)?"
_NO_DATE = r"(?!(?:19|20)\d\d[-/.年])"
_DIGITS = r"(?:[\dxX*＊][-—－· ]{0,2}){%s}(?![\d年月日元万亿个人名块次点级版])"
_AFTER = {
    "phone": re.compile(_JOIN + _NO_DATE + "(" + _DIGITS % "7,13" + ")"),
    "qq": re.compile(_JOIN + _NO_DATE + r"((?:\d[-—－· ]{0,1}){5,12}(?![\d.年月日元万亿个人名块次点级版]))"),
    "wechat": re.compile(
        r"(?:[号號]\s?[:：]?\s?|\s?[:：]\s?)([A-Za-z][-\w]{5,19})(?<![^\x21-\x7e])"
        "|"
        + _JOIN
        + r"((?:[A-Za-z](?=[A-Za-z_-]*[\d_])[-A-Za-z\d_]{5,19}|[\d*xX]{6,12})(?![\d年月元万亿个人]))"
    ),
}

# Search for a digit first, then check what stands before it: the search then skips text at C speed.
_MASK = r"[\d*＊xX]"
_NOT_IN_WORD = r"(?<![\dA-Za-z._/=#%-].)"
_WORD_ENDS = r"(?![\dA-Za-z_])"
_PHONE = re.compile(
    rf"[01０１48４８xX]{_NOT_IN_WORD}(?:"
    rf"(?<=[1１])[3-9３-９]\d(?:[-—－ ·]?{_MASK}{{4}}){{2}}{_WORD_ENDS}"
    rf"|(?<=[0０])[1-9１-９]\d{{1,2}}[)）]?[-—－ ]{{1,2}}[2-8２-８]{_MASK}{{6,7}}{_WORD_ENDS}(?!-)"
    rf"|(?<=[48４８])[0０]{{2}}[-—－ ]?{_MASK}{{3,4}}[-—－ ]?{_MASK}{{3,4}}{_WORD_ENDS}"
    rf"|(?<=[xX])[xX]{{10}}{_WORD_ENDS})"  # a mobile number that was masked out whole
)

#: URLs with a scheme, and the hosts of mail addresses, which are no links.
_LINKED = re.compile(r"://[^\s，。；、）】》\"'<>]+|@[A-Za-z0-9.-]+")
#: Bare domains: lower case, by their last label. Endings that are also member names (console.info,
#: rect.top) or file names (main.cc) count only after www. or before a path.
_BARE = re.compile(
    r"[.．](?<=[A-Za-z0-9][.．])"
    r"(?:(?:com|cn|net|org|edu|gov|hk|tw|vip|xyz|tk|wang)(?![A-Za-z0-9_(-]|[.．][A-Za-z0-9])"
    r"|(?:com|cn|net|org|edu|gov|hk|tw|vip|xyz|tk|wang|cc|top|info|club|site|online|shop|me|tv|io|pw|ml|ga|cf)/)"
)


def id_density(text: str) -> float:
    """Contact ids per 1000 characters; an id that is given twice counts twice. 0 for an empty text."""
    return 1000.0 * len(_ids(text)) / max(len(text), 1)


def url_density(text: str) -> float:
    """URLs and bare domains per 1000 characters. Mail addresses, file names, versions and
    IP addresses do not count."""
    if "." not in text and "．" not in text:
        return 0.0
    linked = _LINKED.findall(text)
    rest = _LINKED.sub(" ", text) if linked else text
    urls = sum(each[0] == ":" for each in linked) + len(_BARE.findall(rest))
    return 1000.0 * urls / max(len(text), 1)


def _ids(text: str) -> list[int]:
    """Where the contact ids of a text begin, in order."""
    results = {match.start() for match in _PHONE.finditer(text)}
    cues = _cues()
    for _, stop, term, _ in cues.find(text).tolist():
        match = _AFTER[cues.categories[cues.of_term[term]]].match(text, stop)
        if match:
            results.add(match.start(match.lastindex or 0))
    return sorted(results)


@cache
def _cues() -> Lexicon:
    return build({kind: terms.split() for kind, terms in _CUES.items()})
