"""Line rules: the lines that each cuts, and the lines of text that none may cut."""

from __future__ import annotations

import pyarrow as pa
import pytest

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.text.lines import line_rules

CUT = {
    "controls": [
        *(
            "展开全文",
            "更多>>",
            "点击加载更多",
            "阅读全文",
            "Read more",
            "返回顶部↑",
            "[回到顶部]",
            "登录 | 注册 | 忘记密码",
        ),
        *(
            "分享到：微信 微博 QQ空间",
            "字号：大 中 小 打印本页 关闭窗口",
            "首页 上一页 1 2 3 下一页 尾页",
            "赞 12 回复 收藏 查看更多评论",
        ),
    ],
    "breadcrumb": [
        "首页 > 新闻中心 > 正文",
        "当前位置：网站首页 > 资讯 > 详情",
        "您的当前位置： 新闻中心 > 武汉",
        "当前位置：",
    ],
    "pager": ["上一篇：没有了", "下一篇: 秋天的雨", "【上一章】：风起"],
    "byline": [
        "责任编辑：admin",
        "来源：网络 编辑：小编 阅读：1238 次",
        "2014-12-08 07:39:00 来源: 网易财经",
        "（编辑：王辉）",
    ],
    "copyright_line": [
        *(
            "京ICP备12345678号-1",
            "Copyright © 2008-2020 All Rights Reserved.",
            "某某网版权所有 未经授权禁止转载",
        ),
        *(
            "免责声明：本站内容仅供参考。",
            "版权声明：本文来源于网络，如有侵权请联系删除。",
            "不良信息举报电话：010-12345678",
        ),
    ],
    "related_heading": ["相关推荐", "【热门文章】", "猜你喜欢：", "网友评论"],
    "notice": [
        *("您的浏览器不支持JavaScript，请启用JavaScript后刷新本页。" * n for n in (1, 3)),
        *(
            "本网站使用Cookie以改善您的体验。继续浏览即表示您同意我们使用Cookie。接受 拒绝",
            "正在加载中，请稍候...",
            "Loading...",
        ),
        *("请先登录后查看更多内容", "返回首页404 页面不存在", "对不起，您访问的页面已被删除或不存在"),
    ],
    "lorem_ipsum": ["Lorem ipsum dolor sit amet, consectetur adipiscing elit."],
    "follow_us": ["扫一扫关注我们的微信公众号，获取更多资讯"],
    "advert": [
        "【广告】点击领取新人专享优惠券，限时抢购",
        ">>> 免费注册会员，下载完整版文档 <<<",
        "联系电话：400-123-4567 微信同号",
    ],
    "injected_spam": [
        "澳门新葡京娱乐城 注册送彩金 www.xx123.com",
        "老虎机 百家乐 开户 官网",
        "博*彩 微信：abc12345",
    ],
    "bare_link": [
        "https://example.com/a.html",
        "![](https://a.cn/b.png)",
        "<http://a.com>",
        "www.a.com www.b.com",
    ],
    "link_bar": ["首页 | 新闻 | 图片 | 评论 | 娱乐 | 财经 | 军事 | 体育"],
}
KEPT = [
    *(
        "登录",
        "注册",
        "## 相关阅读",
        "延伸阅读",
        "联系我们",
        "更多？",
        "大小",
        "展开",
        "返回",
        "评论",
    ),  # headings and words
    *("2.4 数据读取", "//字体大小", "第3页讲的是什么", "1. A 2. B 3. C", "错误码 404 Not Found"),
    *(
        "「嗯。」",
        "“你登录了吗？”",
        "甲：他在首页。",
        "床前明月光，疑是地上霜。",
        "来日绮窗前，寒梅著花未？",
        "关关雎鸠",
    ),
    *(
        "作者：李白",
        "来源：《史记》",
        "编辑：点击按钮即可修改，改完保存。",
        "时间：2020年5月1日",
        "责任编辑认为，这一稿可以发表。",
    ),
    *(
        "上一篇文章说到，他回来了。",
        "首页 → 设置 → 账号",
        "当前位置：第3格，再走两步。",
        "当前位置的坐标是多少？",
    ),
    *(
        "版权所有者可以授权他人使用。",
        "// Copyright 2016 Google Inc.",
        "(c) 1998年颁布的条例",
        "该书的版权归作者所有。",
    ),
    *(
        "要在浏览器中运行，请先安装 JavaScript 引擎，再启用模块。",
        "JavaScript 是一门语言",
        "如果浏览器不支持 WebGL，就用画布。",
    ),
    *(
        "警方捣毁一个利用老虎机、百家乐赌博的团伙，涉案3000000元。",
        "菠菜叶里的血管",
        "澳门赌场业收入上升",
        "扫描二维码即可登录。",
    ),
    *(
        "[1]: https://example.com/a",
        "via: http://a.com/b",
        "# https://a.com/api",
        "详见 https://a.com/b 一文",
        "公众号与平台经济",
    ),
    *(
        "| 姓名 | 年龄 | 甲 | 乙 | 丙 | 丁 | 戊 | 己 |",
        "Lorem ipsum 是排版用的假文",
        "免费下载",
        "（四）法律、法规规定的其他情形。",
    ),
    *(
        "位置",
        "位置i > 0",
        "前一个：3",
        "ICP备案流程",
        "该公司已办理备案，号码为京ICP备12345678号。",
        "食品许可证12345678",
    ),
]
RULES = line_rules.select(line_rules.DEFAULT)


@pytest.mark.parametrize(("rule", "line"), [(rule, line) for rule, lines in CUT.items() for line in lines])
def test_page_furniture_is_cut_by_the_rule_made_for_it(rule: str, line: str) -> None:
    assert line_rules.DEFAULT[rule].cuts(line)
    assert line_rules.cuts(pa.array([f"一段正文。\n  {line} \n又一段。"]), RULES)[0].keys() == {1}


@pytest.mark.parametrize("line", KEPT)
def test_text_stays(line: str) -> None:
    assert line_rules.cuts(pa.array([line]), RULES) == {}


def test_every_default_rule_has_examples() -> None:
    assert CUT.keys() == line_rules.DEFAULT.keys()


def test_cues_hide_no_line_from_its_rule() -> None:
    lines = [line for examples in CUT.values() for line in examples] + KEPT
    found = line_rules.cuts(pa.array(["\n".join(lines)]), RULES)[0]
    for number, line in enumerate(lines):
        by_hand = [name for name, rule in line_rules.DEFAULT.items() if rule.cuts(line)]
        assert found.get(number, "") == next(iter(by_hand), ""), line


def test_rules_that_ct_llm_describes_are_there_and_are_not_the_default() -> None:
    described = line_rules.select(["no_terminal_punctuation", "javascript", "fewer_than_3_words"])
    text = "春晓\n春眠不觉晓，\nJavaScript 教程如下所示。\n这一行有句号和足够的词。\n好。"
    taken = line_rules.cuts(pa.array([text]), described)[0]
    assert taken == {
        0: "no_terminal_punctuation",
        1: "no_terminal_punctuation",
        2: "javascript",
        4: "fewer_than_3_words",
    }
    assert line_rules.cuts(pa.array([text]), RULES) == {}


def test_bad_word_cuts_lines_with_a_word_of_the_list() -> None:
    rules = line_rules.select(["bad_word"], ["坏词", "Bad"])
    assert line_rules.cuts(pa.array(["好行\n有坏词的行\nBAD line"]), rules)[0] == {
        1: "bad_word",
        2: "bad_word",
    }


def test_an_unknown_rule_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match="did you mean 'breadcrumb'"):
        line_rules.select(["breadcrum"])


@pytest.mark.parametrize(
    "part", ["查看更多", "分享到", "来源：a ", "> ", "请登录后查看", "正在加载", "| ", "www.", "博*"]
)
def test_no_line_makes_a_rule_backtrack_for_long(part: str) -> None:
    for rule in line_rules.DEFAULT.values():
        rule.cuts((part * 5000)[:20000] + "。x")
