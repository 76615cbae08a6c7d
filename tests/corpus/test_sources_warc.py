"""WARC and WET: every page once, what is broken is one error, positions do not depend on the compression."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from ctllm_ray.corpus.engine.splits import SplitLimits

from .source_rows import errors, positions, rows

PAGE = "<title>题</title><p>你好".encode()


HTTP = "application/http; msgtype=response"


def record(block: bytes, kind: str = "response", content_type: str = HTTP) -> bytes:
    """A WARC record with that block."""
    fields = {
        "WARC-Type": kind,
        "WARC-Target-URI": "http://a.cn/页",
        "WARC-Date": "2020-01-01T00:00:00Z",
        "WARC-Record-ID": "<urn:uuid:b8878adf-b13f-5718-b21b-acf3a0aa260b>",
        "Content-Type": content_type,
        "Content-Length": str(len(block)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"WARC/1.0\r\n{head}\r\n".encode() + block + b"\r\n\r\n"


def response(content: bytes, content_type: str = "text/html; charset=gbk", more: str = "") -> bytes:
    """The block of a response record."""
    head = f"Content-Type: {content_type}\r\n" if content_type else ""
    return f"HTTP/1.1 200 OK\r\n{head}{more}\r\n".encode() + content


GOOD = record(response(PAGE))
INFO = record(b"software: x\r\n", "warcinfo", "application/warc-fields")


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def read(tmp_path: Path, content: bytes, limits: SplitLimits = SplitLimits(1 << 20, 64)) -> list[dict]:  # noqa: B008
    return rows("warc", write(tmp_path / "a.warc", content), limits)


def test_a_page_has_its_bytes_url_date_and_the_content_type_of_http(tmp_path: Path) -> None:
    (row,) = read(tmp_path, INFO + GOOD)
    assert row == {
        "id": f"in/a.warc#{len(INFO)}", "text": None, "url": "http://a.cn/页", "title": None,
        "date": "2020-01-01T00:00:00Z", "raw": PAGE, "content_type": "text/html; charset=gbk", "reject": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "content_type", ["text/html", "TEXT/HTML;charset=utf-8", "application/xhtml+xml", "text/plain", ""]
)
def test_html_xhtml_plain_and_untyped_responses_are_pages(tmp_path: Path, content_type: str) -> None:
    assert [row["raw"] for row in read(tmp_path, record(response(PAGE, content_type)))] == [PAGE]


def test_resources_of_html_are_pages_and_all_other_records_are_none(tmp_path: Path) -> None:
    others = [
        record(response(b"\x89PNG", "image/png")),
        record(b"GET / HTTP/1.1\r\nHost: a.cn\r\n\r\n", "request", "application/http; msgtype=request"),
        record(response(b""), "revisit"),
        record(b"a: b", "metadata", "application/warc-fields"),
        record(b"a.cn. 300 IN A 1.2.3.4", "response", "text/dns"),
        record(b"\x00", "resource", "image/gif"),
    ]
    found = read(tmp_path, b"".join(others) + record(PAGE, "resource", "text/html"))
    assert [(row["raw"], row["content_type"]) for row in found] == [(PAGE, "text/html")]


ENCODINGS = {
    "Content-Encoding: gzip\r\n": gzip.compress(PAGE),
    "Content-Encoding: deflate\r\n": zlib.compress(PAGE),
    "Transfer-Encoding: chunked\r\n": b"%x\r\n%s\r\n0\r\n\r\n" % (len(PAGE), PAGE),
    "Content-Encoding: identity\r\n": PAGE,
}


@pytest.mark.parametrize("header", ENCODINGS)
def test_content_and_transfer_encodings_are_undone(tmp_path: Path, header: str) -> None:
    assert [
        row["raw"] for row in read(tmp_path, record(response(ENCODINGS[header], more=header)) + GOOD)
    ] == [
        PAGE,
        PAGE,
    ]


@pytest.mark.parametrize("header", ENCODINGS)
def test_an_encoding_that_a_header_claims_in_vain_leaves_the_bytes_as_they_are(
    tmp_path: Path, header: str
) -> None:
    assert [row["raw"] for row in read(tmp_path, record(response(PAGE, more=header)) + GOOD)] == [PAGE, PAGE]


@pytest.mark.parametrize("block", [b"", b"no header at all", b"Content-Type: text/html\r\n\r\n<p>"])
def test_a_response_that_is_not_http_is_one_error_with_its_url_between_good_ones(
    tmp_path: Path, block: bytes
) -> None:
    before, bad, after = read(tmp_path, GOOD + record(block) + GOOD)
    assert (before["raw"], after["raw"]) == (PAGE, PAGE)
    assert (bad["reject"], bad["raw"], bad["url"]) == ("error.invalid_http", block, "http://a.cn/页")


def test_headers_that_end_in_bare_newlines_are_read(tmp_path: Path) -> None:
    loose = GOOD.replace(b"\r\n", b"\n").replace(b"Content-Length: %d" % len(response(PAGE)), b"Content-Length: %d" % (
        len(response(PAGE).replace(b"\r\n", b"\n"))
    ))  # fmt: skip
    assert [row["raw"] for row in read(tmp_path, loose + loose)] == [PAGE, PAGE]


def test_a_record_over_the_limit_is_an_error_and_the_next_one_is_read(tmp_path: Path) -> None:
    large, good = read(tmp_path, record(response(b"x" * 2000)) + GOOD, SplitLimits(1000, 16))
    assert (large["reject"], len(large["raw"])) == ("error.record_too_large", 16)
    assert good["raw"] == PAGE


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: good.replace(b"WARC/1.0", b"XARC/1.0"),
        lambda good: good.replace(b"WARC-Type", b"WARC_Typ"),
        lambda good: b"something else, longer than any spacing between two records would be\r\n" * 3,
    ],
)
def test_what_stands_between_two_records_and_is_none_is_one_error(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    found = read(tmp_path, GOOD + damage(GOOD) + GOOD)
    assert errors(found) == ["error.invalid_warc"]
    assert len(found) == 3
    assert positions(found)[1] >= len(GOOD) - 4


def test_a_file_of_another_kind_is_one_error(tmp_path: Path) -> None:
    assert errors(read(tmp_path, b"<html>not a WARC file</html>\n" * 10)) == ["error.invalid_warc"]


def test_a_length_with_more_digits_than_python_reads_is_no_record(tmp_path: Path) -> None:
    long = GOOD.replace(b"Content-Length: ", b"Content-Length: " + b"9" * 5000)
    found = rows("warc", write(tmp_path / "a.warc", GOOD + long + GOOD))
    assert [row["reject"] for row in found] == [None, "error.invalid_warc", None]


def arc_record(url: str, block: bytes) -> bytes:
    """An ARC record."""
    return f"{url} 1.2.3.4 20080102030405 text/html {len(block)}\n".encode() + block + b"\n"


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_arc_file_with_a_damaged_beginning_is_still_one(tmp_path: Path, suffix: str) -> None:
    first, page = arc_record("filedesc://a.arc", b"1 0 x\n"), arc_record("http://a.cn/", response(PAGE))
    parts = [b"????" + first[4:], page, page]
    if suffix:
        parts = [b"????" + gzip.compress(first)[4:], gzip.compress(page), gzip.compress(page)]
    found = rows("warc", write(tmp_path / f"a.arc{suffix}", b"".join(parts)))
    assert [row["raw"] for row in found if not row["reject"]] == [PAGE, PAGE]


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    assert read(tmp_path, b"") == []


def test_every_cut_of_a_plain_file_keeps_the_records_before_it_and_is_one_error(tmp_path: Path) -> None:
    content = INFO + GOOD + GOOD
    begin, end = len(INFO) + len(GOOD), len(content)
    for cut in range(begin + 1, end - 4):
        found = read(tmp_path, content[:cut])
        assert [row["raw"] for row in found if not row["reject"]] == [PAGE]
        assert errors(found) == ["error.truncated"], cut
    assert errors(read(tmp_path, content[:begin])) == []


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_every_cut_of_a_compressed_file_keeps_the_records_before_it_and_is_one_error(
    tmp_path: Path, suffix: str
) -> None:
    pack = gzip.compress if suffix == ".gz" else zstandard.compress
    dice = random.Random(5)
    members = [INFO] + [record(response(dice.randbytes(dice.choice([10, 1000, 90_000])))) for _ in range(12)]
    whole = rows("warc", write(tmp_path / "a.warc", b"".join(members)))
    assert len(whole) == 12
    for content in (b"".join(map(pack, members)), pack(b"".join(members))):
        for cut in dice.sample(range(1, len(content) - 1), 25):
            found = rows("warc", write(tmp_path / f"a.warc{suffix}", content[:cut]))
            assert errors(found) in (["error.truncated"], [])  # none where the cut falls between two members
            kept = [row["raw"] for row in found if not row["reject"]]
            assert kept == [row["raw"] for row in whole[: len(kept)]]
            assert len(positions(found)) == len(set(positions(found)))


def test_a_cut_in_a_compressed_record_leaves_its_first_bytes_and_url(tmp_path: Path) -> None:
    packed = gzip.compress(record(response(random.Random(0).randbytes(5000))))
    (row,) = rows("warc", write(tmp_path / "a.warc.gz", packed[:3000]))
    assert (row["reject"], row["url"]) == ("error.truncated", "http://a.cn/页")
    assert row["raw"].startswith(b"HTTP/1.1 200 OK")


def test_compression_changes_no_position(tmp_path: Path, shared_data: Path) -> None:
    path = shared_data / "html_zh" / "zh_pages.warc.gz"
    content = gzip.decompress(path.read_bytes())
    found = rows("warc", path)
    for name, packed in (("a.warc", content), ("a.warc.zst", zstandard.compress(content))):
        again = rows("warc", write(tmp_path / name, packed))
        assert [row | {"id": ""} for row in again] == [row | {"id": ""} for row in found]
        assert positions(again) == positions(found)


_BOMB = """
import resource, sys
sys.path[:0] = [{tests!r}]
from corpus.source_rows import rows
from ctllm_ray.corpus.engine.splits import SplitLimits
rows("warc", {warm!r}, SplitLimits(1 << 20, 64))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print([row["reject"] for row in rows("warc", {path!r}, SplitLimits(1 << 20, 64))])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_zip_bomb_is_one_error_and_is_not_unfolded(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(1 << 20)) * 500
    path = write(tmp_path / "a.warc", record(response(bomb, more="Content-Encoding: gzip\r\n")) + GOOD)
    script = _BOMB.format(
        tests=str(Path(__file__).parents[1]), warm=str(write(tmp_path / "w.warc", GOOD)), path=str(path)
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found, grown_kb = done.stdout.splitlines()
    assert found == "['error.record_too_large', None]"
    assert int(grown_kb) < 50_000


SAMPLES = {
    "commoncrawl__ia-web-commons__html-lang-attribute.warc": 5,
    "commoncrawl__whirlwind-python__whirlwind.warc.gz": 1,
    "commoncrawl__whirlwind-python__whirlwind.warc.wat.gz": 0,
    "iipc__jwarc__cc.warc.gz": 1,
    "webrecorder__warcio__example-iana.org-chunked.warc": 1,
    "webrecorder__warcio__example.warc": 1,
    "webrecorder__warcio__example.warc.gz": 1,
}


@pytest.mark.parametrize("name", SAMPLES)
def test_real_samples_have_their_pages_and_no_errors(shared_data: Path, name: str) -> None:
    found = rows("warc", shared_data / "warc_samples" / name)
    assert errors(found) == []
    assert len(found) == SAMPLES[name]
    assert all(b"<html" in row["raw"].lower() for row in found)


def test_the_real_chinese_archive_has_its_226_pages_beside_one_warcinfo(shared_data: Path) -> None:
    found = rows("warc", shared_data / "html_zh" / "zh_pages.warc.gz", SplitLimits(16 << 20, 64))
    assert (len(found), errors(found)) == (226, [])
    pages = rows("parquet", shared_data / "html_zh" / "pages.parquet", SplitLimits(16 << 20, 64), html="raw")
    assert {row["raw"] for row in found} <= {row["raw"] for row in pages}
