"""Finds adverts and injected spam: one or two foreign
lines in a good page. The line is removed, the page stays.

Density and context decide, not a word: an advert is short and calls to buy more than once, or names a contact
to add; injected spam joins vice to a contact or to several offers. News, law and encyclopaedia name the same
things, in sentences.
"""

from __future__ import annotations

import re

ADVERT_LONGEST = 60  # characters
SPAM_LONGEST = 100

_FOLLOW = re.compile(
    r"[^。]*(?:扫一扫|扫码|扫描|长按|识别)[^。]{0,20}(?:关注|公众号|客户端|APP|手机看|资讯|微信)[^。]*[。！!]?"
    r"|(?:欢迎|敬请|请)?关注(?:我们的?|本站|官方)?[^。，]{0,10}(?:微信)?公众号[^。]*[。！!]?"
)
_CALL = re.compile(
    r"点击(?:领取|下载|进入|咨询|报名|注册|购买)|免费(?:注册|领取|试听|试玩|咨询|下载)|限时(?:抢购|优惠|特惠|免费|领取|秒杀)"
    r"|优惠券|新人专享|下载完整版|注册会员|立即(?:抢购|购买|下载|领取|咨询|报名|注册)|咨询热线|在线客服"
)
_LABELLED = re.compile(r"[【\[（(](?:广告|推广|赞助商?链接)[】\]）)].*|广告|Advertisement|ADVERTISEMENT")
_APP = r"(?:微信|薇信|威信|QQ|扣扣|[Vv][Xx])"
_ADD_ME = re.compile(rf"微信同号|同微信|微信同步|[加＋+]\s*(?:我|本)?{_APP}")
_CONTACT = re.compile(
    rf"(?:{_APP}|电话|手机|热线|联系方式|TG|电报)(?:号|群)?[^\w，。]{{0,4}}[A-Za-z0-9][A-Za-z0-9_-]{{4,}}"
    r"|https?:|www\.|\.(?:com|net|cc|vip|top)\b"
)
_MARKS = re.compile(r"[\s*＊·•_~|^\-—]+")
_VICE = re.compile(
    "博彩|菠菜网|菠菜平台|六合彩|时时彩|北京赛车|百家乐|老虎机|真人荷官|真人视讯|葡京|赌场|太阳城|皇冠体育|体育投注"
    "|彩票平台|棋牌平台|娱乐城|送彩金|送体验金|首存|BBIN|威尼斯人|金沙娱乐|龙虎斗|约炮|裸聊|援交|同城交友|代开发票"
    "|发票代开|刻章办证|黑户贷款|无抵押贷款"
)
_VICES = _VICE.pattern.split("|")
#: What a line with such a word contains: the word, or its first character followed by a mark.
VICE_CUES = (*_VICES, *(word[0] + mark for word in _VICES for mark in " *＊·•_~|^-—"))
_OFFER = re.compile(
    r"开户|投注|返水|彩金|提现|充值|官网|网址|注册|下载|平台|导航|首选|信誉|[加联]系?(?:微信|QQ|客服)"
)


def follow_us(line: str) -> bool:
    """扫一扫关注我们的微信公众号，获取更多资讯"""
    return len(line) <= ADVERT_LONGEST and bool(_FOLLOW.fullmatch(line))


def advert(line: str) -> bool:
    """【广告】点击领取优惠券 · 联系电话：400-123-4567 微信同号 · two different calls to buy in one short line"""
    if len(line) > ADVERT_LONGEST:
        return False
    adds = _ADD_ME.search(line) and re.search(r"[A-Za-z0-9_-]{5,}", line)
    return bool(_LABELLED.fullmatch(line) or adds or len(set(_CALL.findall(line))) >= 2)


def injected_spam(line: str) -> bool:
    """澳门新葡京娱乐城 注册送彩金 www.xx.com: vice with a contact, or two vices with two offers, in a short line.

    Marks put between the characters of a word (博*彩) do not
    hide it. A full stop makes a line a sentence, which stays.
    """
    if len(line) > SPAM_LONGEST or "。" in line:
        return False
    squeezed = _MARKS.sub("", line)
    vices = len(set(_VICE.findall(squeezed)))
    return bool(vices and (_CONTACT.search(line) or (vices >= 2 and len(set(_OFFER.findall(squeezed))) >= 2)))
