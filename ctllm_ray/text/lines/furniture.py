"""Recognizes lines of Chinese page furniture: breadcrumbs, counters, share buttons, credits, licence numbers.

A line is furniture only as a whole: a pattern must match it from end to end, and none allows a sentence after
its words. So 责任编辑：张三 is removed and 责任编辑认为，这一稿可以发表。 is kept. `ANYWHERE` patterns
count at any position. `BUTTONS` and `RELATED` are words that an article may also have on a line (微信, 更多,
相关新闻): they are removed only in the unbroken run of furniture at the head or tail of the page. So are
`DISCLAIMERS`, the only kind made of sentences. A RELATED heading ends the page if no prose follows.

Simplified and Traditional forms stand side by side. The lists are our own, read off real pages. Cost: a few
microseconds a line, and only for lines of at most LONGEST characters that do not end like a sentence.
"""

from __future__ import annotations

import re

#: A longer line is never furniture, except disclaimers.
LONGEST = 120
#: After a "related pages" heading, a line this long with a full stop is article text again.
PROSE_LENGTH = 30
#: A list of fields (来源, a date, counts) may leave so many characters unexplained: an author's or an
#: outlet's name.
UNEXPLAINED = 8
#: The last paragraph is searched for an editor's credit in its last so many characters.
CREDIT_LENGTH = 40


def _any(words: str) -> str:
    return "(?:" + "|".join(words.split()) + ")"


def _lines(*patterns: str) -> re.Pattern[str]:
    """A pattern for fullmatch, one per kind of line."""
    return re.compile("|".join(patterns), re.IGNORECASE)


_DATE = r"(?:19|20)\d\d\s?[-/.年]\s?\d{1,2}\s?[-/.月]\s?\d{1,2}日?(?:\s*星期[一二三四五六日天])?"
_TIME = r"\d{1,2}[:：]\d{2}(?:[:：]\d{2})?"
_READERS = _any(
    "参与 跟贴 跟帖 评论 評論 阅读 閱讀 浏览 瀏覽 点击 點擊 访问 訪問 回复 关注 分享 点赞 收藏 下载 转发"
)
_EDITOR = _any(
    "责任编辑 責任編輯 实习编辑 值班编辑 网络编辑 执行编辑 编辑 編輯 责编 責編 审核 审校 校对 校對 监制 编审"
)
_VALUE = r"\s?[:：]\s?[^\s。！？!?；;|｜]{1,24}(?: [A-Za-z.]{1,12}){0,2}"
# Fields that are furniture by themselves. A speaker (记者：您好), a place and time of an event, the keywords of a
# paper are not: they only count as explained beside one of these.
_CREDIT = "|".join(
    [
        rf"(?<!\w)\d[\d,，]*\s?[人次条條个個篇则]?\s?{_READERS}(?![一-鿿])",
        rf"(?:文章)?(?:{_READERS}|人气|人氣|热度|查看)(?:次数|次數|数|數|量)?\s?[:：]\s?[\d,]+\s?次?",
        rf"(?:发布|發布|發佈|发表|發表|更新|创建|添加|录入|最后更新)(?:时间|時間|日期|于|於)?\s?[:：]?\s?{_DATE}",
        rf"(?:本文|文章|稿件|信息|资料|新闻)?(?:来源|來源|出处|出處|稿源){_VALUE}",
        rf"{_EDITOR}{_VALUE}",
    ]
)
_BESIDE = _any(
    "作者 记者 記者 通讯员 发布者 发布人 发布单位 发布机构 供稿 撰稿 摄影 时间 時間 日期 分类 栏目 标签 "
    "關鍵字 关键词"
)
_SEPARATOR = r"[\s|｜/／·•,，;；、()（）\[\]【】<>《》「」»＞›→：:_\-—–]"
_FIELD = re.compile(rf"{_CREDIT}|{_DATE}|{_TIME}|{_BESIDE}{_VALUE}|\d+|{_SEPARATOR}+", re.IGNORECASE)
_HAS_CREDIT = re.compile(rf".{{0,40}}?(?:{_CREDIT})", re.IGNORECASE)
_HAS_TIME = re.compile(rf".{{0,{UNEXPLAINED}}}?{_DATE}\s*{_TIME}")

_NAVIGATION = r"(?:[上下前后後]一?[篇页頁章条條则則节節个張张]|[上下]一?主题|[上下]一篇(?:文章|新闻|博文))"
_MARKS = r"[\[【(（<«＜]?"
ANYWHERE = _lines(
    # 当前位置：首页 > 新闻 > 正文
    r"(?:您|你)?(?:当前|當前|现在|現在|目前|所在)?的?(?:所在)?的?位置(?:是)?\s?[:：].{0,80}",
    r"(?:网站|本站)?(?:首页|首頁|主页|Home)\s?[>＞»›→/／\-—].{0,60}",
    r"[^。！？]{1,40}[>＞»›→]\s*(?:正文|内容|详情|详细内容|文章正文)",
    # 上一篇：...
    rf"{_MARKS}\s?{_NAVIGATION}\s?(?:[:：>＞»】\])）].{{0,60}})?",
    # 分享到：微信 QQ空间
    r"(?:一键)?(?:分享|转发|轉發)(?:到|至|给)\s?[:：].{0,40}",
    r"(?:一键)?(?:分享|转发)(?:到|至|给)(?:微信|微博|QQ|朋友|好友|新浪|空间|人人)[^。！？]{0,30}|分享至好友和朋友圈",
    # 【字号：大 中 小】
    r"[【\[(（]?(?:浏览)?(?:字号|字號|字体|字體)(?:大小)?[】\])）]?\s?[:：]?\s?"
    r"(?:[\[【(（]?(?:特大|超大|大|中|小|默认|[AT][+-]?)[\]】)）]?[\s|/,、·]*+)+.{0,6}",
    r"[\[【(（]\s?[大中小]\s?[\]】)）][^。！？]{0,20}",
    # （责任编辑：张三）
    rf"[\[【(（]\s?(?:{_EDITOR}|作者|(?:本文|文章)?来源)\s?[:：/][^。！？]{{0,30}}[\]】)）]",
    # Copyright © 2010-2022 某某网 版权所有 京ICP备00000000号
    r"(?:©|\(c\)|（c）|copyright\b|版权所有|版權所有).{0,100}",
    r"[^。！？]{0,60}(?:版权所有|版權所有|all rights reserved)[^。！？]{0,50}",
    r"[^。！？]{0,80}(?:ICP[备備证證]|网安备|公安备案|增值电信业务|(?:许可|服务)证(?:编号|号)?[:：]\w{0,8}\d|备案号[:：])[^。！？]{0,80}",
    r"[^。！？]{0,24}(?:不良信息|有害信息|监督|新闻热线|广告热线|客服)(?:举报)?(?:电话|热线|邮箱|中心)?[:：][^。！？]{0,60}",
    r"网站标识码[:：].{0,30}|(?:主办|承办|技术支持|建设维护)(?:单位)?[:：][^。！？]{0,60}",
    # 用微信扫描二维码
    r"(?:用|使用|打开|请用)?(?:微信|手机)?(?:扫描|扫一扫|扫码|掃描)(?:[上下左右][方面])?"
    r"(?:二维码|二維碼|关注|關注|下载|访问)[^。！？]{0,30}",
    r"更多(?:精彩|相关|资讯|内容|精彩资讯)[^。！？]{0,8}(?:请点击|点击|请关注|敬请|尽在)[^。！？]{0,20}",
    r"(?:点击|點擊)(?:这里|此处|查看|进入|下载)(?:更多|原文|全文|大图|专题)[^。！？]{0,14}",
    r"(?:跟贴热词|关键词阅读)\s?[:：].{0,60}|\d+\s?人参与[^。！？]{0,30}",
    r"(?:本文|原文|文章)(?:链接|連結|地址|网址|永久链接|出处)\s?[:：].{0,100}|共\s?\d+\s?页.{0,20}",
)

_BUTTON = _any(
    "登录 登陆 登入 登錄 注册 註冊 免费注册 立即注册 退出 安全退出 忘记密码？? 返回顶部 回到顶部 回顶部"
    " 回頂部 返回頂部 回到頂端 TOP 返回首页 返回列表 返回目录 返回 收藏本站 加入收藏 收藏本文 设为首页"
    " 設為首頁 打印本页 打印本文 打印此页 打印 列印 关闭窗口 关闭本页 关闭 關閉 复制链接 複製連結 复制"
    " 收藏 点赞 赞 踩 顶 举报 檢舉 纠错 我要纠错 投稿 反馈 意见反馈 手机版 电脑版 触屏版 客户端 下载客户端"
    " 下载APP 扫一扫 微信扫一扫 一键转发 关注我们 联系我们 聯絡我們 关于我们 關於我們 网站地图 網站地圖"
    " 广告服务 诚聘英才 招聘信息 法律声明 隐私政策 隱私政策 使用条款 服务条款 免责声明 版权声明 帮助中心"
    " 帮助 网站首页 首页 首頁 末页 尾页 查看更多 加载更多 点击加载更多 更多内容 更多 展开全文 展开 收起"
    " 查看全文 阅读全文 閱讀全文 发表评论 發表評論 我要评论 我来说两句 参与讨论 后参与讨论 暂无评论 评论"
    " 評論 留言 回复 没有了 跳转到主要内容 跳过导航 全局导航 导航 搜索 搜尋 提交 重置 确定 取消 分享到"
    " 分享至 分享本文 分享 推荐 转发 关注 微信好友 微信朋友圈 微信 新浪微博 腾讯微博 微博 QQ空间 QQ好友 QQ"
    " 朋友圈 人人网 豆瓣 百度贴吧 Facebook Twitter Line Weibo WeChat 简体中文 繁體中文 简体 繁体 繁體 中文"
    " English 字号 字體 字体 特大 超大 大 中 小 默认 正文 跟贴热词 推荐成功 欢迎您 客官 您好 广告"
)
BUTTONS = _lines(rf"(?>{_BUTTON}(?:{_SEPARATOR}|[\d.…+])*+)+")

RELATED = _lines(
    rf"{_any('相关 相關 延伸 推荐 推薦 扩展 关联 拓展 热门 熱門 最新 精彩 更多 重点 热点 本周 今日 本类 同类 本站')}"
    rf"{_any('阅读 閱讀 推荐 推薦 新闻 新聞 文章 链接 鏈接 連結 报道 報導 内容 资讯 資訊 专题 图文 博文 帖子 评论')}"
    r"\s?[:：]?\s?(?:更多)?[>＞»]*\d*",
    r"(?:猜[你您]喜欢|为[您你]推荐|大家都在[看搜]|[你您]可能(?:会|还|也)?(?:感兴趣|喜欢)(?:的.{1,4})?|看了又看)\s?[:：]?",
    r"(?:(?:阅读|点击|新闻)?排行榜?|网友评论|網友評論|全部评论|网友跟贴|友情链接|文章导航|网易荐新闻)\s?[:：]?",
)

DISCLAIMERS = _lines(
    r"[*＊※◎\s]*(?:网友|以上|本文|本站|文章|该文).{0,28}(?:不代表|不表明|不构成|與本站無關|与本站无关).{0,60}",
    r"[*＊※◎\s]*.{0,10}(?:免责|版权|特别|郑重|转载|重要)(?:声明|聲明|说明|保护)\s?[:：]"
    r".*(?:转载|轉載|侵权|侵權|版权|版權|不代表|本网|本站).*",
    r"(?:凡|如)(?:本网|本站|注明|有|需|涉及).{0,40}(?:转载|侵权|版权|来源|署名).*",
    r"(?:未经|未經).{0,20}(?:授权|许可|允许|同意|授權|許可).{0,20}(?:不得|禁止|请勿|严禁|谢绝|請勿).{0,30}",
    r"(?:本文)?版权归.{1,20}所有.{0,30}|文明上网.{0,20}",
)

_CREDIT_AT_END = re.compile(rf"\s?[（(【\[]\s?{_EDITOR}\s?[:：/]\s?[^）)】\]。]{{1,20}}[）)】\]]\s?$")
_RULE = re.compile(r"[\s|｜·•*\-—–_=~<>«»＞›]*")
_NO_LETTERS = re.compile(r"[\W_]+")
_ENDS_OF_PROSE = tuple("。！？；”")
_FULL_STOP = re.compile(r"[。！？!?；]")


def letters(line: str) -> str:
    """The letters and digits of a line, for comparisons that ignore spacing and punctuation."""
    return _NO_LETTERS.sub("", line)


def is_furniture(line: str) -> bool:
    """Whether a whole line is page furniture wherever it stands."""
    if len(line) > LONGEST or line.endswith(_ENDS_OF_PROSE):
        return False
    return bool(ANYWHERE.fullmatch(line)) or (bool(_HAS_CREDIT.match(line)) and _is_field_list(line))


def _is_field_list(line: str) -> bool:
    """Whether a line consists of fields, such as `2015-07-04 07:55
    来源：新华网　阅读：39992`, and almost nothing else."""
    return len(_FIELD.sub("", line)) <= UNEXPLAINED


def _is_edge(line: str) -> bool:
    """Whether a line is furniture at the head or the tail of a page."""
    if len(line) > LONGEST:
        return bool(DISCLAIMERS.fullmatch(line))
    if BUTTONS.fullmatch(line) or RELATED.fullmatch(line) or _RULE.fullmatch(line):
        return True
    if is_furniture(line) or DISCLAIMERS.fullmatch(line):
        return True
    return bool(_HAS_TIME.match(line)) and _is_field_list(line)


def _is_prose(line: str) -> bool:
    return len(line) >= PROSE_LENGTH and bool(_FULL_STOP.search(line))


def trim(lines: list[str], titles: tuple[str, ...] = ()) -> list[str]:
    """The lines without page furniture, in order.

    At the head one line that repeats a title goes too, unless nothing would be left.
    """
    headlines = {letters(title) for title in titles} - {""}
    return _trim_edges(lines, headlines) or _trim_edges(lines, set())


def _trim_edges(lines: list[str], headlines: set[str]) -> list[str]:
    first, last = 0, len(lines)
    while first < last:
        if headlines and letters(lines[first]) in headlines:
            headlines = set()
        elif not _is_edge(lines[first].strip()):
            break
        first += 1
    last = _end(lines, first)
    body = [line for line in lines[first:last] if not is_furniture(line.strip())]
    if body:
        body[-1] = body[-1][:-CREDIT_LENGTH] + _CREDIT_AT_END.sub("", body[-1][-CREDIT_LENGTH:])
    return body


def _end(lines: list[str], first: int) -> int:
    """Where the tail's furniture starts."""
    last = len(lines)
    for k in range(last - 1, first, -1):
        if _is_prose(lines[k]):
            break
        if RELATED.fullmatch(lines[k].strip()):
            last = k
    while last > first and _is_edge(lines[last - 1].strip()):
        last -= 1
    return last
