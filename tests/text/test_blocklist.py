"""Laws of URL blocklists, on small hand-written lists and on the real UT1 categories."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import zstandard

from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.text.blocklist import host, load
from ctllm_ray.text.measures.url import blocklist


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Three categories: plain, gzip and zstd; one whitelist that contradicts them."""
    for name in ("gambling", "adult", "phishing", "liste_blanche"):
        (tmp_path / name).mkdir()
    (tmp_path / "gambling" / "domains").write_text(
        "# comment\n\nexample.com\nwww.BET.example.org\n10.1.2.3\n例子.中国\n"
    )
    (tmp_path / "gambling" / "urls").write_text(
        "mixed.net/ad\nmixed.net/Casino/play/\nmixed.net/show.php?id=7\n"
    )
    (tmp_path / "adult" / "domains.gz").write_bytes(gzip.compress(b"adult.example.com\nblog.cn\n"))
    (tmp_path / "phishing" / "urls.zst").write_bytes(zstandard.compress("p.net/登录\n".encode()))
    (tmp_path / "liste_blanche" / "domains").write_text("good.example.com\n")
    return str(tmp_path)


def category(folder: str, url: str, **more: list[str]) -> str:
    return blocklist(url, folder=folder, categories=["gambling", "adult", "phishing"], **more)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://example.com/", "gambling"),
        ("https://a.b.example.com/x/y.html", "gambling"),
        ("http://notexample.com/", ""),
        ("http://example.com.cn/", ""),
        ("http://com/", ""),
        ("bet.example.org", "gambling"),
        ("https://u%73er:pw@WWW.Example.COM.:8443/x", "gambling"),
        ("http://example.com@innocent.net/", ""),
        ("http://innocent.net/?to=http://example.com/", ""),
        ("http://ex%61mple.com/", "gambling"),
        ("//example.com/x", "gambling"),
        ("http:\\\\example.com\\x", "gambling"),
    ],
)
def test_a_domain_matches_itself_and_everything_below_it_however_it_is_written(
    folder: str, url: str, expected: str
) -> None:
    assert category(folder, url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://mixed.net/ad", "gambling"),
        ("http://mixed.net/ad/1.html", "gambling"),
        ("http://mixed.net/ad?x=1", "gambling"),
        ("http://mixed.net/AD#top", "gambling"),
        ("http://mixed.net/adventure", ""),
        ("http://mixed.net/x/ad", ""),
        ("http://mixed.net/", ""),
        ("http://mixed.net//casino/./x/../PLAY", "gambling"),
        ("http://mixed.net/%63asino/play/1", "gambling"),
        ("http://mixed.net/show.php?id=7&page=2", "gambling"),
        ("http://mixed.net/show.php?id=71", ""),
        ("http://p.net/%E7%99%BB%E5%BD%95/a", "phishing"),
    ],
)
def test_a_url_matches_by_path_prefix_at_a_boundary_only(folder: str, url: str, expected: str) -> None:
    assert category(folder, url) == expected


def test_addresses_match_whole_in_any_notation_and_have_no_parent_domains(folder: str) -> None:
    assert category(folder, "http://10.1.2.3:8080/x") == "gambling"
    assert category(folder, "http://167838211/") == "gambling"
    assert category(folder, "http://0xA010203/") == "gambling"
    assert category(folder, "http://9.10.1.2.3/") == ""
    assert host("http://[2001:DB8::1]:80/x") == "2001:db8::1"


def test_internationalised_hosts_are_one_with_their_punycode(folder: str) -> None:
    assert category(folder, "http://例子.中国/") == "gambling"
    assert category(folder, "http://xn--fsqu00a.xn--fiqs8s/") == "gambling"
    assert category(folder, "http://" + "长" * 80 + ".中国/") == ""


def test_whitelists_win_over_every_category(folder: str) -> None:
    assert category(folder, "http://good.example.com/") == ""
    assert category(folder, "http://good.example.com/", allow=[]) == "gambling"
    assert category(folder, "http://blog.cn/me") == "adult"
    assert category(folder, "http://blog.cn/me", allow_urls=["blog.cn/me"]) == ""
    assert category(folder, "http://blog.cn/you", allow_urls=["blog.cn/me"]) == "adult"


def test_the_first_category_of_the_recipe_names_an_entry_that_several_hold(folder: str) -> None:
    both = "http://adult.example.com/"
    assert blocklist(both, folder=folder, categories=["gambling", "adult"]) == "gambling"
    assert blocklist(both, folder=folder, categories=["adult", "gambling"]) == "adult"
    assert blocklist(both, folder=folder, categories=["phishing"]) == ""


def test_a_document_without_url_is_in_no_category(folder: str) -> None:
    assert category(folder, "") == ""


def test_a_wrong_category_or_folder_is_an_error_that_names_what_exists(folder: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'gambling'") as error:
        blocklist("", folder=folder, categories=["gamblin"])
    assert "phishing" in str(error.value)
    with pytest.raises(InputError, match="folder does not exist"):
        blocklist("", folder=str(tmp_path / "absent"), categories=["gambling"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no list"):
        blocklist("", folder=folder, categories=["empty"])


def test_a_path_of_ten_thousand_slashes_is_looked_up_at_32_prefixes(folder: str) -> None:
    assert category(folder, "http://mixed.net" + "/a?b&" * 10_000) == ""
    assert category(folder, "http://" + "a." * 10_000 + "net/") == ""


def test_of_300_planted_bad_urls_all_but_two_whitelisted_ones_are_found_and_no_other_url_is(
    shared_data: Path,
) -> None:
    truth = pq.read_table(
        shared_data / "web_zh_raw" / "truth.parquet", columns=["doc_id", "bad_url_category"]
    ).to_pylist()
    bad = {row["doc_id"]: row["bad_url_category"] for row in truth}
    lists = load(
        str(shared_data / "url_blacklists" / "ut1"),
        tuple(sorted({*bad.values()} - {None})),
        ("liste_blanche",),
        (),
    )
    missed, false = [], []
    for file in sorted((shared_data / "web_zh_raw").glob("part-*.zst")):
        with zstandard.open(file, "rb") as stream:
            for line in stream.read().splitlines():
                record = json.loads(line)
                found, expected = bool(lists.category(record["url"])), bool(bad[record["doc_id"]])
                if found != expected:
                    (false if found else missed).append(host(record["url"]))
    assert missed == ["cri.univ-tlse1.fr"] * 2  # the list's own test pages, which its white list allows
    assert false == []
