"""Lines of Chinese page furniture: breadcrumbs, counters, share buttons, editors' credits, records of the licence.

A line is furniture only as a whole: every pattern must match it from end to end, and none admits a full sentence
after the words it knows. So 责任编辑：张三 goes and 责任编辑认为，这一稿可以发表。 stays. STRONG patterns go wherever
they stand; EDGE ones are words that an article may well have on a line of their own (微信, 更多, 上海) and go only in the
unbroken run of furniture at the head or the tail. A heading such as 相关阅读 ends the page when nothing but short
lines follows it.

Simplified and Traditional forms side by side. The list is our own, read off the pages of shared/data/html_zh and the
pitfall list of the house (navigation runs). Cost: one regex match per line of at most LONGEST characters, on the lines
that are left after the body has been found.
"""

from __future__ import annotations

import re

#: A longer line is never furniture, save the disclaimers, which start with a word of their own.
LONGEST = 120
#: After a heading of related pages, a line of so many characters with a full stop is an article again.
PROSE_LENGTH = 30
#: A list of fields (来源, date, counts) may leave so many characters unexplained: an author's name or the outlet.
UNEXPLAINED = 8
#: A credit of the editor at the end of the last paragraph is looked for in so many characters.
CREDIT_LENGTH = 40

_DATE = r"(?:19|20)\d\d\s?[-/.年]\s?\d{1,2}\s?[-/.月]\s?\d{1,2}日?(?:\s*星期[一二三四五六日天])?"
_TIME = r"\d{1,2}[:：]\d{2}(?:[:：]\d{2})?"
_KEYS = (
    r"(?:本文|文章|稿件|信息|资料)?(?:来源|來源|出处|出處|稿源)|作者|记者|記者|(?:本文|本站|文章)?(?:责任|責任|实习|实习|值班|网络|執行|执行)?(?:编辑|編輯)"
    r"|责编|責編|审核|审校|校对|校對|监制|监审|(?:发布|发表|發布|發佈|發表|更新|创建|建立|时间|添加|录入|收录)?(?:时间|時間|日期|于|於)"
    r"|发布者?|發布|发表|(?:文章)?(?:点击|點擊|阅读|閱讀|浏览|瀏覽|访问|訪問|查看|人气|人氣|热度|评论|評論|回复|回覆|关注|跟帖|转发|下载|收藏|点赞)(?:次数|次數|量|数|數)?"
    r"|字号|字體|字体(?:大小)?|分类|分類|栏目|标签|標籤|关键词|关键字|關鍵字|Tags?|原标题|所属专题|发布单位|发布机构|浏览字号|文号|索引号|信息索引"
)
_COUNT = r"\d[\d,，]*\s*(?:人|次|条|個|个|篇|则)?\s*(?:参与|跟贴|跟帖|评论|評論|阅读|閱讀|浏览|瀏覽|点击|點擊|回复|关注|分享|赞|喜欢|收藏)"
_SEPARATOR = r"[\s|｜/／·•,，;；、()（）\[\]【】<>《》「」»＞›→：:_\-—–]"

_FIELD = re.compile(
    rf"(?i:{_DATE}|{_TIME}|{_COUNT}(?![一-鿿])|(?:{_KEYS})\s?[:：]\s?[^\s。！？!?；;|｜]{{0,24}}|\d+|{_SEPARATOR}+|©|\bby\b)"
)
_FIRST_FIELD = re.compile(rf"(?i:.{{0,{UNEXPLAINED}}}?(?:{_DATE}\s*{_TIME}|{_COUNT}(?![一-鿿])|(?:{_KEYS})\s?[:：]))")

_BUTTONS = (
    "登录|登陆|登入|登錄|注册|註冊|免费注册|立即注册|退出|安全退出|忘记密码？?|返回顶部|回到顶部|回顶部|回頂部|返回頂部|回到頂端|TOP|返回首页|返回列表|返回目录|返回"
    "|收藏本站|加入收藏|收藏本文|设为首页|設為首頁|打印本页|打印本文|打印|列印|打印此页|关闭窗口|关闭本页|关闭|關閉|复制链接|点击复制|收藏|赞|点赞|踩|举报|檢舉|纠错|我要纠错"
    "|投稿|反馈|意见反馈|手机版|电脑版|触屏版|客户端|下载客户端|下载APP|APP下载|扫一扫|关注我们|联系我们|聯絡我們|关于我们|關於我們|网站地图|網站地圖|站点地图|广告服务|友情链接"
    "|诚聘英才|招聘信息|法律声明|隐私政策|隱私政策|隐私权政策|使用条款|服务条款|免责声明|版权声明|帮助中心|帮助|首页|首頁|网站首页|上一页|下一页|上一頁|下一頁|上一篇|下一篇|上一章|下一章"
    "|末页|尾页|查看更多|更多|更多内容|加载更多|点击加载更多|展开全文|展开|收起|查看全文|阅读全文|閱讀全文|发表评论|我要评论|我来说两句|评论|留言|回复|發表評論|暂无评论|没有了|跳转到主要内容|跳过导航"
    "|全局导航|导航|搜索|搜尋|搜一下|提交|重置|确定|取消|分享到|分享至|分享|分享本文|一键分享|推荐|转发|微信|微博|新浪微博|腾讯微博|QQ|QQ空间|QQ好友|微信好友|朋友圈|微信朋友圈|人人网|豆瓣|百度贴吧"
    "|Facebook|Twitter|Line|LINE|Weibo|WeChat|复制|简体|繁体|繁體|简体中文|繁體中文|中文|English|EN|字号|字体|字體|大|中|小|特大|超大|默认|跟贴热词|热词|正文|推荐成功"
)
_RELATED = (
    r"(?:相关|相關|延伸|推荐|推薦|扩展|关联|拓展|热门|熱門|最新|精彩|更多|本周|今日|本类|同类|本站|站内)"
    r"(?:阅读|閱讀|推荐|推薦|新闻|新聞|文章|链接|鏈接|連結|报道|報導|内容|资讯|資訊|专题|图文|主题|话题|关注|博文|帖子|视频|评论|精选|点击|排行)"
    r"|猜你喜欢|猜您喜欢|为您推荐|为你推荐|大家都在看|大家都在搜|你可能(?:会|还|也)?(?:感兴趣|喜欢)(?:的.{1,4})?|您可能感兴趣的.{0,4}|热点新闻|热点推荐|重点推荐|阅读排行|点击排行|排行榜"
    r"|网友评论|最新评论|全部评论|精彩评论|热门评论|网友跟贴|網友評論|相关标签|热门标签|友情链接|文章导航|荐新闻|您可能(?:还|也)喜欢|看了又看"
)
_DISCLAIMER = (
    r"(?:网友|以上|本文|本站|文章|该文).{0,12}(?:评论|内容|观点|言论|信息|文章).{0,16}(?:不代表|不表明|并不代表|不构成|與本站無關|与本站无关).{0,40}"
    r"|.{0,10}(?:免责|版权|特别|郑重|转载|本站|本网)?(?:声明|聲明|说明)[:：].*(?:转载|轉載|侵权|侵權|版权|版權|不代表|立场|立場|本网|本站).*"
    r"|(?:凡|如)(?:本网|本站|注明|有|需|涉及).{0,40}(?:转载|侵权|版权|来源|署名).*"
    r"|(?:未经|未經).{0,20}(?:授权|许可|允许|同意|授權|許可).{0,20}(?:不得|禁止|请勿|严禁|谢绝|請勿).{0,30}"
    r"|文明上网.{0,20}|请遵守.{0,30}(?:法律|法规|公约|规定).{0,20}|(?:本文)?版权归.{1,20}所有.{0,30}"
)
_STRONG = (
    r"(?:您|你)?(?:当前|當前|现在|現在|目前|所在)?(?:的|所在)*的?位置(?:是)?\s?[:：].{0,80}"
    r"|(?:网站|本站)?(?:首页|首頁|主页|Home)\s*[>＞»›→/／\-—:：].{0,60}|.{1,40}[>＞»›→]\s*(?:正文|内容|详情|详细内容|内容页|文章正文)"
    r"|[<«＜【\[]?\s?[上下前后後]一?(?:篇|页|頁|章|条|條|则|則|节|節|篇文章|篇新闻|主题|个|张)\s?(?:[:：>＞»】\]].{0,60}|)"
    r"|分享(?:到|至|给|本文)?\s?[:：].{0,40}|(?:一键|转发|分享)(?:到|至|给)(?:微信|微博|QQ|朋友|好友|新浪|空间|人人).{0,30}"
    r"|【?(?:浏览)?(?:字号|字體|字体)(?:大小)?】?[:：\s]?(?:[\[【(（]?\s?(?:特大|超大|大|中|小|默认|A[+-]?|T[+-]?)\s?[\]】)）]?[\s|/,、·]*){1,5}.{0,12}"
    r"|[\[【(（]\s?(?:大|中|小)\s?[\]】)）].{0,20}"
    r"|[\[【(（]\s?(?:责任编辑|責任編輯|责编|编辑|編輯|實習編輯|实习编辑|值班编辑|审核|来源|作者|本文来源|文章来源)\s?[:：][^。！？]{0,30}[\]】)）]"
    r"|(?:©|&copy;|\(c\)|（c）|copyright\b|版权所有|版權所有|著作权所有).{0,100}|[^。！？]{0,60}(?:版权所有|版權所有|all rights reserved)[^。！？]{0,50}"
    r"|[^。！？，,]{0,80}(?:ICP[备備证證]|网安备|网备|公安备案|增值电信业务经营许可证|许可证编?号|新出网证|备案号)[^。！？]{0,80}"
    r"|[^。！？]{0,24}(?:违法和不良信息|不良信息|网上有害信息|客服|监督|新闻热线|广告热线)(?:举报)?(?:电话|热线|邮箱|中心)?[:：][^。！？]{0,60}|网站标识码[:：].{0,30}|(?:主办|承办|技术支持|建设维护|版权归属)(?:单位)?[:：][^。！？]{0,60}"
    r"|(?:用|使用|打开|请用)?(?:微信|手机)?(?:扫描|扫一扫|扫码|掃描)(?:上方|下方|左侧|右侧|上面|下面)?(?:二维码|二維碼|關注|关注|下载|访问).{0,30}|分享至好友和朋友圈"
    r"|(?:更多精彩|更多相关|更多资讯|更多内容|更多精彩资讯).{0,12}(?:请点击|点击|请关注|敬请|尽在).{0,20}|(?:点击|點擊)(?:这里|此处|查看|进入|下载)(?:更多|原文|全文|大图|专题)?.{0,14}"
    r"|跟贴热词[:：]?.{0,40}|关键词阅读[:：].{0,60}|.{0,3}\d*\s?人参与.{0,30}|(?:顶|踩|赞)\s?[(（]?\d*[)）]?|本文(?:链接|地址|网址|永久链接)[:：].{0,100}|(?:原文|本文)(?:链接|地址|出处)[:：].{0,100}"
    r"|客官(?:，|,)?欢迎您.{0,4}|欢迎您[，,]?|(?:最佳|建议)(?:浏览|分辨率).{0,40}|(?:建议使用|推荐使用).{0,30}浏览器.{0,20}|共\s?\d+\s?页.{0,20}|第?\s?\d+\s?/\s?\d+\s?页?"
)

STRONG = re.compile(rf"(?i:{_STRONG})")
EDGE = re.compile(rf"(?i:(?>(?:{_BUTTONS})(?:{_SEPARATOR}|\d|[.…+])*+)+)")
RELATED = re.compile(rf"(?:{_RELATED})\s?[:：]?\s?(?:更多.{{0,3}}|[>＞»]*|\d*)")
DISCLAIMER = re.compile(rf"(?i:[*＊※◎注：:\s]*(?:{_DISCLAIMER}))")
_CREDIT_AT_END = re.compile(
    r"\s*[（(【\[]\s?(?:责任编辑|責任編輯|责编|責編|编辑|編輯|实习编辑)\s?[:：/]\s?[^）)】\]。]{1,20}[）)】\]]\s*$"
)
_ENDS_OF_PROSE = tuple("。！？；”")
_FULL_STOP = re.compile(r"[。！？!?；]")


def _fields(line: str) -> bool:
    """Whether a line is a list of fields such as `2015-07-04 07:55 来源：新华网　阅读：39992` and nothing more."""
    return bool(_FIRST_FIELD.match(line)) and len(_FIELD.sub("", line)) <= UNEXPLAINED


def is_furniture(line: str) -> bool:
    """Whether a whole line is page furniture wherever it stands."""
    return len(line) <= LONGEST and line[-1:] not in _ENDS_OF_PROSE and bool(STRONG.fullmatch(line) or _fields(line))


def _at_edge(line: str) -> bool:
    """Whether a line is furniture at the head or the tail of a page."""
    if len(line) > LONGEST:
        return bool(DISCLAIMER.fullmatch(line))
    return is_furniture(line) or bool(
        EDGE.fullmatch(line) or RELATED.fullmatch(line) or DISCLAIMER.fullmatch(line) or not any(map(str.isalnum, line))
    )


def _is_prose(line: str) -> bool:
    return len(line) >= PROSE_LENGTH and bool(_FULL_STOP.search(line))


def letters(line: str) -> str:
    """The letters and digits of a line: what is compared where spacing and punctuation differ."""
    return "".join(filter(str.isalnum, line))


def trim(lines: list[str], title: str = "", full_title: str = "") -> list[str]:
    """The lines without page furniture, in their order.

    At the head, lines that repeat the page's title go too, unless the page then has no text at all.
    """
    body = _between(lines, {letters(title), letters(full_title)} - {""})
    return body or _between(lines, set())


def _between(lines: list[str], titles: set[str]) -> list[str]:
    first, last = 0, len(lines)
    while first < last and (_at_edge(lines[first].strip()) or letters(lines[first]) in titles):
        first += 1
    for k in range(last - 1, first, -1):  # a heading of related pages with no prose after it ends the page
        if _is_prose(lines[k]):
            break
        if RELATED.fullmatch(lines[k].strip()):
            last = k
    while last > first and _at_edge(lines[last - 1].strip()):
        last -= 1
    body = [line for line in lines[first:last] if not is_furniture(line.strip())]
    if body:
        body[-1] = body[-1][:-CREDIT_LENGTH] + _CREDIT_AT_END.sub("", body[-1][-CREDIT_LENGTH:])
    return body
