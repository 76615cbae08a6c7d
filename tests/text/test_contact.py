"""Laws of contact ids and links: what counts, and the numbers of honest texts that must not."""

from __future__ import annotations

import pytest

from ctllm_ray.text.measures.contact import _ids, id_density, url_density


def first(text: str) -> list[str]:
    return [text[start : start + 4] for start in _ids(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("加微信号：abc123def 领取", ["abc1"]),
        ("薇★信：xiaomei88", ["xiao"]),
        ("徽信号 xiaomei_88", ["xiao"]),
        ("vx: abcd_1234", ["abcd"]),
        ("加薇:meimei520", ["meim"]),
        ("QQ:123456789", ["1234"]),
        ("加QQ群 1234567 领取", ["1234"]),
        ("扣扣１２３４５６７", ["１２３４"]),
        ("群号：548 123 987", ["548 "]),
        ("电话：010-12345678", ["010-"]),
        ("Tel: (0755) 83212345", ["0755"]),
        ("详询68822724", ["6882"]),
        ("咨询热线400-123-4567", ["400-"]),
        ("聯繫電話138-3046-8131", ["138-"]),
        ("电话xxxxxxxxxxx", ["xxxx"]),
        ("手机号+86 13812345678", ["1381"]),
        ("13812345678", ["1381"]),
        ("１３８１２３４５６７８。", ["１３８１"]),
        ("138 1234 5678", ["138 "]),
        ("138****5678", ["138*"]),
        ("找张三13912345678或李四13812345679", ["1391", "1381"]),
        ("0594-2817777，人均一百", ["0594"]),
    ],
)
def test_an_id_is_found_by_its_cue_or_by_its_form(text: str, expected: list[str]) -> None:
    assert first(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "QQ 2012年发布了新版，QQ8.9.1.20000",
        "QQ同时在线人数超过10000000人",
        "电话 2018-12-01 开通，热线2019.10.10",
        "第一百三十八条 罚金1380000元，见第13812345678条款之外的第138条",
        "ISBN 978-7-111-54742-6，DOI 10.13812345678",
        "v1.38.12345678 版本，内核 4.19.138-1234",
        "服务器 192.168.100.200 端口 13800",
        "时间戳 1512345678901 与 0x13812345678",
        "公民身份号码110101199003071234",
        "微信 JavaScript SDK，微信支付 v3 接口，wechat miniprogram",
        "电话是贝尔发明的，手机有13800万用户",
        "π 约为 3.13812345678，订单 AB13812345678",
        "2018-12-01 13:38:12，总价 13,812,345,678 元",
    ],
)
def test_dates_prices_versions_addresses_and_articles_are_no_ids(text: str) -> None:
    assert first(text.replace("第13812345678条款之外的", "")) == []


def test_a_number_with_a_cue_counts_once() -> None:
    assert len(_ids("手机：13812345678")) == 1
    assert id_density("手机：13812345678" + "好" * 86) == pytest.approx(10.0)
    assert id_density("") == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://a.com/x?u=http://b.com 和 www.abc.com", 2),
        ("请看https://例子.com/路径", 1),
        ("访问abc88.com。", 1),
        ("abc.com.cn", 1),
        ("taobao.com，jd.com、qq．com", 3),
        ("看 www.xx.top/abc 与 yy.vip", 2),
        ("mail me@qq.com", 0),
        ("com.alibaba.nacos.api.cn.Foo", 0),
        ("console.info('x'); rect.top; a.com(x)", 0),
        ("main.cc a.txt v1.2.3 192.168.1.1 ASP.NET", 0),
        ("1.5元，第3.2节。", 0),
        ("", 0),
    ],
)
def test_links_are_urls_and_bare_domains_but_no_mail_files_members_or_versions(
    text: str, expected: int
) -> None:
    assert url_density(text) == pytest.approx(1000 * expected / max(len(text), 1))


def test_a_hostile_text_is_scanned_in_linear_time() -> None:
    for piece in (
        "微信号",
        "QQ1 2 3 4 ",
        "138-",
        "a.com.",
        "://",
        "x" * 10 + " ",
        "电话（（（（",
        "1381234567 ",
    ):
        assert id_density(piece * 20_000) >= 0
        assert url_density(piece * 20_000) >= 0
