"""Recognizes lines that a site puts around a text: buttons, breadcrumbs, bylines, copyright lines, notices.

Each function answers for one line, blanks at its ends removed: is the whole of it such a line? Vocabulary is
closed and must fill the line, so that no text goes with it; a lone word that may be a heading (登录, 相关阅读,
联系我们) stays unless another control stands beside it. `furniture.py` knows more such lines and is bolder, since
extraction knows where on a page a line stood; here a line may come from a poem, a statute or a manual.
Phrases were collected by reading real pages (html_zh). Vocabularies match possessively, and only lines of at
most LONGEST characters are looked at, so that no line can make these expressions backtrack for long.
"""

from __future__ import annotations

import re

LONGEST = 300  # characters; a longer line is text


def _any(words: str) -> str:
    """A regex group of words separated by spaces, longer ones first: the possessive match
    takes the first that fits."""
    return "(?:" + "|".join(sorted(words.split(), key=len, reverse=True)) + ")"


# Buttons and bars.
_GAP = r"[\s|｜丨/·•⋅\-—–,，、:：;；>＞»›<＜«\[\]【】()（）\d+.。…!！*↑↓▲▼=&]*+"
_CONTROL = (  # enough by itself
    r"(?:点击|點擊)?(?:查看|加载|載入|阅读|閱讀|浏览|展开|展開|显示)(?:更多|全文|全部|原文|大图|详情|余下)"
    r"(?:内容|评论|回复|跟贴|新闻|文章)?"
    r"|点击(?:查看|展开|进入|这里)|更多(?:详情|评论|精彩)?|返回(?:网站)?(?:首页|顶部|列表|上一页|目录|主页)|(?:返|回)回?到?[頂顶][部端]"
    r"|(?:免费|立即|快速|新用户)注册|分享[到至](?:微信|微博|朋友圈|空间)?|打印本[页文稿]"
    r"|我要(?:评论|纠错|打印|投稿)|[上下]一[篇页頁条章]"
    r"|共\d+[页頁]|第\d+[页頁]|[Rr]ead [Mm]ore|READ MORE|[Bb]ack to [Tt]op|[Ss]kip to (?:main )?content|"
    + _any(
        "继续阅读 忘记密码[?？]? 忘記密碼[?？]? 自动登录 加入收藏 设为首页 關閉視窗 关闭窗口 发表评论 "
        "不良信息举报"
        " 客户端下载 下载客户端 网站地图"
    )
)
_WORD = _any(  # may be a heading: not enough alone
    "登录 登錄 登入 登陆 注册 註冊 首页 首頁 尾页 末页 主页 收藏 打印 列印 分享 举报 檢舉 关注 回复 点赞 "
    "评论 评论数"
    " 转发 阅读 微信 微信好友 新浪微博 腾讯微博 微博 QQ空间 QQ好友 QQ 朋友圈 人人网 豆瓣 复制链接 客户端 "
    "手机版 电脑版"
    " 搜索 退出 关闭 展开 收起 二维码 联系我们 关于我们 隐私政策 隐私保护 服务条款 服务协议 用户协议 用户中心"
    " 意见反馈 友情链接 广告服务 招聘信息 人才招聘 诚聘英才 法律声明 免责声明 版权声明 个人中心 帮助中心"
    " facebook Facebook Twitter LINE"
)
_FONT = (
    r"字[号號體体型](?:大小)?[\s:：]*"
    r"(?:[\[【(]?大[\s|\]】)]+[\[【(]?中[\s|\]】)]+[\[【(]?小[\]】)]?|(?:A[-+]?\s*(?:默认)?\s*){2,3})"
)
_PART = rf"(?>{_FONT}|{_CONTROL}|{_WORD}|[赞踩顶](?=[\s|\d]|$)){_GAP}"
_BAR = re.compile(rf"{_GAP}(?:{_PART})++")
_ENOUGH = re.compile(rf"{_FONT}|{_CONTROL}")
_WORD_BAR = re.compile(rf"{_WORD}(?:[\s|｜丨]++{_WORD})++")


def controls(line: str) -> bool:
    """展开全文 · 上一页 1 2 3 下一页 · 分享到：微信 微博 QQ空间 · 字号：大 中 小 打印本页 关闭窗口 · 登录 | 注册"""
    return bool(_BAR.fullmatch(line) and (_ENOUGH.search(line) or _WORD_BAR.fullmatch(line)))


# Where a page stands in its site.
_TITLE = r"[^。！？；\n]{0,60}"
_HERE = r"(?:您|你)?(?:现在|目前|當前|当前)?的?(?:当前)?所?在?的?位置(?:是)?"
_BREADCRUMB = re.compile(
    rf"(?=[您你当當现目]){_HERE}\s*[:：]|{_HERE}\s*[:：]\s*{_TITLE}[>＞»›]{_TITLE}"
    rf"|{_HERE}\s*[:：]?\s*[^\s。，]{{0,10}}(?:首页|主页|首頁){_TITLE}"
    rf"|[^\s。，>＞»›]{{0,10}}(?:首页|主页|首頁|频道)\s*(?:[>＞»›]|&gt;)+{_TITLE}|Home\s*[>＞»›]{_TITLE}"
)
_PAGER = re.compile(
    rf"[\s<＜«·•\[【]*(?:[上下]一[篇页頁条章节則则]|[前后後]一[篇页頁条章]|Previous|Next)(?:文章|新闻|主题)?[\]】]?\s*[:：]{_TITLE}[?？!！]?"
)


def breadcrumb(line: str) -> object:
    """首页 > 新闻中心 > 正文 · 当前位置：网站首页 > 资讯 > 详情"""
    return _BREADCRUMB.fullmatch(line)


def pager(line: str) -> object:
    """上一篇：没有了 · 下一篇：秋天的雨"""
    return _PAGER.fullmatch(line)


# Who published it and when.
_STAMP = r"\d{4}[-/.年]\d{1,2}[-/.月]\d{1,2}日?(?:\s*\d{1,2}[:：]\d{2}(?:[:：]\d{2})?)?"
_FIELD = (
    r"(?:(?:本文|信息|稿件)?来源|(?:发布|更新)?(?:时间|日期)|(?:点击|阅读|浏览|评论)(?:数|次数|量|率)?|"
    + _any("稿源 作者 记者 编辑 责任编辑 责编 发布 发布者 发布人 访问量 人气 字号 稿件")
    + ")"
)
_FIELDS = re.compile(
    rf"[\[（(【]?\s*(?:(?>{_STAMP})\s*|{_FIELD}\s*[:：|｜]\s*(?>{_STAMP}|[^\s:：，。]{{0,20}})\s*(?:次|人)?\s*){{2,12}}"
    r"[\]）)】]?"
)
_WEB_FIELD = re.compile(r"编辑|责编|点击|阅读|浏览|访问量|人气|评论|发布|更新时间|字号|\d{4}.*(?:来源|稿源)")
_EDITOR = re.compile(
    r"[\[（(【]?\s*(?:责任编辑|責任編輯|责任编校|责编|本文编辑|网络编辑)\s*[:：|｜][^。！？，\n]{0,30}[\]）)】]?"
    r"|[\[（(【]\s*(?:编辑|編輯)\s*[:：|｜][^。，\n]{0,20}[\]）)】]"
)


def byline(line: str) -> object:
    """责任编辑：admin · 来源：网络 编辑：小编 阅读：1238 次 · (编辑：王辉). A lone 作者：李白 or 来源：史记 stays."""
    return _EDITOR.fullmatch(line) or (
        len(line) <= LONGEST and _FIELDS.fullmatch(line) and _WEB_FIELD.search(line)
    )


# Copyright and licences.
_OWNER = re.compile(
    r"(?=.{0,200}$)[^。，]*(?:ICP\s*[备证備]\s*(?:案?号)?\s*[:：]?\s*[A-Z]?\d|网安备\s*[:：]?\s*\d|all "
    r"rights? reserved"
    r"|(?:视听节目|信息服务|电信业务经营|互联网出版)许可证(?:编?号)?\s*[:：（(]?\s*[A-Z]?\d)[^。，]*。?"
    r"|(?=.{0,80}$)(?:copyright\s*(?:©|\(c\)|:?\s*\d{4})|©)[^。]*"
    r"|(?=.{0,80}$)[^。，！？()（）]{0,40}版[权權]所有(?![者权人的])[^。，]*",
    re.IGNORECASE,
)
_DISCLAIMER = re.compile(
    r"[\s※【\[（(]*(?:免责|版权|特别|郑重)声明[】\]]?\s*[:：]?.*(?:本站|本网|本文|转载|侵权|不代表).*"
    r"|(?=.{0,100}$)[^。]*(?:如有|若有|如果|如)\s*(?:侵权|侵犯|涉及版权|版权问题)[^。]*(?:联系|告知|通知|删除)[^。]*。?"
    r"|(?=.{0,120}$)(?:违法|不良|互联网)[^。，]{0,12}举报(?:电话|中心|邮箱|热线)[^。]*"
)
_CODE_COMMENT = re.compile(r"//|/\*|\*|#|--|;|<|\"|'|%")


def copyright_line(line: str) -> object:
    """京ICP备12345678号 · © 2020 All Rights Reserved. · 版权声明：本文来源于网络，如有侵权请联系删除。"""
    if len(line) > LONGEST or _CODE_COMMENT.match(line):
        return False
    return _OWNER.fullmatch(line) or _DISCLAIMER.fullmatch(line)


# Links to other pages.
_RELATED = re.compile(
    r"[\s【\[■◆●▶|>＞]*(?:相关(?:推荐|新闻|搜索|资讯|专题|视频|话题)"
    r"|热门(?:推荐|文章|新闻|话题|标签|搜索|评论|资讯|图片|视频|跟贴|排行)|最新(?:文章|评论|资讯)|猜[你您]喜欢|大家都在[看搜]|为[你您]推荐|(?:点击|阅读|新闻|热点|人气)排行榜?|精彩(?:推荐|评论)"
    r"|网友评论|编辑推荐|友情链接|换一[换批]|更多(?:精彩)?(?:内容|推荐|文章))[】\]:：|>＞»\s]*"
)


def related_heading(line: str) -> object:
    """相关推荐 · 【热门文章】 · 猜你喜欢. What articles use as headings themselves (延伸阅读, 相关阅读) stays."""
    return _RELATED.fullmatch(line)


# Messages of the page's software.
_SCRIPT = r"\s*(?:JavaScript|Javascript|javascript|JS|脚本|Cookies?)"
_WAIT = r"[，,、…。.⋅!！ ]*(?:请稍[候等后])?[…。.!！]*"
_NOTICES = "|".join(
    [
        rf"(?:如果)?[您你]的?浏览器(?:版本过低|(?:不支持|已?禁用了?|未启用|未开启){_SCRIPT})[，, ]*"
        r"请[^。！!\n]{0,40}[。！!]?",
        rf"请(?:先)?(?:在(?:您的)?浏览器中?)?(?:启用|开启|打开|允许)[您你]?的?(?:浏览器的?)?{_SCRIPT}"
        r"[^。！!\n]{0,30}[。！!]?",
        r"(?:(?:Please )?[Ee]nable|You need to enable|This (?:site|page) requires|Your browser does not "
        r"support)"
        r" JavaScript[^.\n]{0,80}\.?",
        r"JavaScript (?:is|has been|seems to be) (?:disabled|required|not enabled)[^.\n]{0,80}\.?",
        r"(?:本|我们的?)(?:网站|站点|站|网页)(?:会)?(?:使用|采用|利用)\s*[Cc]ookies?[^。\n]{0,40}"
        r"(?:体验|服务|同意|偏好|设置)[^。\n]{0,20}。?",
        r"(?:若|如)?继续(?:浏览|使用|访问)[^。\n]{0,20}同意[^。\n]{0,40}。?",
        r"(?:全部)?接受\s*拒绝|(?:We|This (?:site|website)) uses? cookies[^.\n]{0,120}\.?",
        rf"(?:页面|图片|视频|数据|内容)?(?:正在|努力|拼命)++(?:加载|载入|读取)(?:中|数据|页面)?{_WAIT}",
        rf"(?:页面|图片|视频|数据|内容|列表)?(?:加载|载入|读取)中{_WAIT}",
        r"[Ll]oading(?:\s*\.{2,}|…+)|[Pp]lease wait(?:\.{2,}|…)",
        r"(?:请|[您你]需要)(?:您|你)?先?登[录陆](?:后|以|才能|再)[^。\n]{0,4}"
        r"(?:查看|评论|回复|阅读|关注|下载|发表|发[帖贴言])[^。\n]{0,10}[。！]?",
        r"(?:404\s*)?(?:对不起|非常抱歉|很抱歉|抱歉)[，,！!\s]*[您你]所?(?:访问|要?查看|请求|浏览|查找|要?找)的?"
        r"(?:页面|网页|内容|文章|帖子)"
        r"[^。\n]{0,16}(?:不存在|删除|找不到|无法访问|无法显示|失效)[^。\n]{0,10}[。！]?",
        r"(?:页面|网页)(?:不存在|找不到了?|未找到|丢失)[。！]?",
    ]
)
_NOTICE = re.compile(rf"{_GAP}(?:(?>{_NOTICES}){_GAP}|{_PART})++")
_ONE_NOTICE = re.compile(_NOTICES)
_LOREM = re.compile(r"lorem ipsum|dolor sit amet,? consectetur", re.IGNORECASE)


def notice(line: str) -> bool:
    """您的浏览器不支持JavaScript，请启用。 · 正在加载中，请稍候... · 请先登录后查看更多内容 · 404 页面不存在"""
    return len(line) <= LONGEST and bool(_NOTICE.fullmatch(line) and _ONE_NOTICE.search(line))


def lorem_ipsum(line: str) -> bool:
    """A line of the printers' dummy text; one with Chinese in it, as in an article about it, stays."""
    return bool(_LOREM.search(line)) and not any("\u4e00" <= c <= "\u9fff" for c in line)
