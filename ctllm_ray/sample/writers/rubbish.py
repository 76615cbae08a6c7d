"""Pages without prose, from word lists: navigation, keyword stuffing, doorway pages, tables, links, symbols.

Each function takes a seeded random generator and returns
a title and a text of the kind that crawls are full of.
"""

from __future__ import annotations

import random
from collections.abc import Callable

_PLACES = (
    "临江", "白石", "青禾", "云溪", "海棠", "平安", "桂花", "石桥", "半山", "窑湾", "米市", "东门", "城北",
    "河西", "南湖", "长桥",
)  # fmt: skip
_SECTIONS = (
    "首页", "新闻", "国内", "国际", "财经", "股票", "基金", "体育", "足球", "篮球", "娱乐", "明星", "电影",
    "电视剧", "音乐", "科技", "手机", "数码", "汽车", "房产", "家居", "教育", "高考", "考研", "留学", "健康",
    "养生", "美食", "旅游", "时尚", "美容", "女性", "母婴", "宠物", "星座", "游戏", "动漫", "小说", "军事",
    "历史", "收藏", "彩票", "天气", "地图", "视频",
)  # fmt: skip
_PRODUCTS = (
    "塑料托盘", "不锈钢水箱", "搬家公司", "除甲醛", "螺旋输送机", "防火门", "彩钢瓦", "开锁", "疏通管道",
    "二手空调回收", "隔音板", "宣传册印刷",
)  # fmt: skip
_QUALITIES = (
    "厂家", "价格", "批发", "哪家好", "多少钱", "报价", "专业", "附近", "上门", "电话", "品牌", "十大排名",
    "供应商", "定做", "直销", "图片",
)  # fmt: skip
_SYMBOLS = "★☆◆◇■□●○▲△▼▽※→←↑↓♀♂♪♫☎☏✿❀❤♡①②③【】『』╭╮╰╯━┃┏┓┗┛～＊＃＠＆％"


def navigation(random: random.Random) -> tuple[str, str]:
    """A portal's menu, one entry a line, and its breadcrumbs and pager."""
    menu = random.sample(_SECTIONS, 34)
    tail = [
        "上一页",
        *map(str, range(1, 9)),
        "下一页",
        "尾页",
        "设为首页",
        "加入收藏",
        "联系我们",
        "网站地图",
    ]
    return "网站导航", "\n".join(
        ["您的位置：首页 > 频道 > 列表", *menu, " ".join(tail), "|".join(random.sample(menu, 12))]
    )


def link_list(random: random.Random) -> tuple[str, str]:
    """Headlines cut off by an ellipsis with dates: a list page."""
    rows = []
    for _ in range(30):
        place, section = random.choice(_PLACES), random.choice(_SECTIONS[1:])
        rows.append(f"· {place}{section}频道今日更新第{random.randint(2, 99)}期…… {_day(random)}")
    return "文章列表", "\n".join(["最新文章", *rows, "更多>>"])


def keyword_stuffing(random: random.Random) -> tuple[str, str]:
    """The product of places, products and qualities, over and over."""
    product, place = random.choice(_PRODUCTS), random.choice(_PLACES)
    words = [random.choice(_PLACES) + product + random.choice(_QUALITIES) for _ in range(150)]
    return f"{place}{product}_{product}厂家_{product}价格", ",".join(words)


def doorway(random: random.Random) -> tuple[str, str]:
    """Fluent sentences around one inserted keyword: the page
    that exists a thousand times, one for each place."""
    place, product = random.choice(_PLACES), random.choice(_PRODUCTS)
    name = place + product
    lines = [
        f"{name}哪家好？{name}多少钱？{name}就找我们！本公司是{place}地区专业从事{product}的企业，竭诚为{place}的客户提供{product}服务。",
        f"我公司的{product}质量可靠，{product}价格合理，{product}服务周到，深受{place}广大新老客户的信赖与好评。",
        f"选择{name}时应当注意哪些问题？第一，看{product}的资质；第二，看{product}的价格；第三，看{product}的售后。",
        f"{name}，{place}专业{product}，{name}公司，{name}电话：170-0000-{random.randint(1000, 9999)}。",
        f"以上就是关于{name}的全部内容，如果您想了解更多{name}的信息，欢迎来电咨询{name}客服，{name}期待与您合作！",
        f"本文关键词：{name}，{name}公司，{name}价格，{name}哪家好，{name}电话，{place}附近{product}",
    ]
    return f"{name}-{name}公司-{name}价格", "\n".join(lines)


def number_table(random: random.Random) -> tuple[str, str]:
    """Rows of codes and quotes without a sentence."""
    rows = []
    for _ in range(40):
        quotes = [f"{random.uniform(1, 99):.2f}" for _ in range(5)]
        rows.append(
            "\t".join([f"{random.randint(600000, 603999)}", *quotes, f"{random.randint(100, 99999)}"])
        )
    return "行情数据", "\n".join(["代码\t开盘\t最高\t最低\t收盘\t涨跌\t成交", *rows])


def timetable(random: random.Random) -> tuple[str, str]:
    """Train numbers, places and times: facts, but no prose."""
    rows = []
    for _ in range(35):
        a, b = random.sample(_PLACES, 2)
        hour, minute = random.randint(5, 22), random.randint(0, 59)
        rows.append(
            f"K{random.randint(1000, 9999)} {a}站 {b}站 {hour:02d}:{minute:02d} {random.randint(5, 240)}元"
        )
    return "列车时刻表", "\n".join(rows)


def url_list(random: random.Random) -> tuple[str, str]:
    """Addresses, one a line."""
    rows = [
        f"http://www.{random.randbytes(4).hex()}.example/{random.randbytes(6).hex()}.html" for _ in range(40)
    ]
    return "友情链接", "\n".join(rows)


def near_empty(random: random.Random) -> tuple[str, str]:
    """A few characters."""
    return "无标题文档", random.choice(
        ["暂无内容", "1", "测试测试", "详情请看图", "。", "此贴已被删除", "test 123", "……"]
    )


def symbols(random: random.Random) -> tuple[str, str]:
    """Ornaments, with a word here and there."""
    lines = ["".join(random.choices(_SYMBOLS, k=40)) + random.choice(_PLACES) for _ in range(15)]
    return "★☆★☆★", "\n".join(lines)


def random_characters(random: random.Random) -> tuple[str, str]:
    """Random Han characters: no language, though every character test passes."""
    lines = ["".join(chr(random.randint(0x4E00, 0x9FA5)) for _ in range(50)) for _ in range(8)]
    return "".join(chr(random.randint(0x4E00, 0x9FA5)) for _ in range(6)), "\n".join(lines)


def debug_fill(random: random.Random) -> tuple[str, str]:
    """烫 and 屯: uninitialised memory of a debug build, printed as GBK."""
    return "程序输出", "输出结果：\n" + "烫" * random.randint(80, 160) + "\n" + "屯" * random.randint(
        80, 160
    ) + "\n锘锘锘"


def _day(random: random.Random) -> str:
    return f"20{random.randint(10, 24)}-{random.randint(1, 12):02d}-{random.randint(1, 28):02d}"


KINDS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    kind.__name__: kind
    for kind in (
        navigation, link_list, keyword_stuffing, doorway, number_table, timetable, url_list, near_empty,
        symbols,
        random_characters, debug_fill,
    )
}  # fmt: skip
