"""The embedded sample: what ships is what the texts build, and everything in it has a row of truth."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import zstandard
from fastwarc.warc import ArchiveIterator, WarcRecordType

from ctllm_ray import sample
from ctllm_ray.base.errors import InputError
from ctllm_ray.sample.build import build
from ctllm_ray.sample.writers import copies, damage, exam, rubbish, stock


@pytest.fixture(scope="module")
def records() -> dict[str, dict]:
    """The text records by url."""
    packed = Path(sample.path("pages.jsonl.zst")).read_bytes()
    lines = zstandard.ZstdDecompressor().decompress(packed).splitlines()
    return {record["url"]: record for record in map(json.loads, lines)}


@pytest.fixture(scope="module")
def sites() -> dict[str, bytes]:
    """The bytes of the HTML pages by url."""
    with Path(sample.path("pages.warc.gz")).open("rb") as stream:
        archive = ArchiveIterator(stream, record_types=WarcRecordType.response)
        return {record.headers["WARC-Target-URI"]: record.reader.read() for record in archive}


@pytest.fixture(scope="module")
def truth() -> list[dict]:
    return [
        json.loads(line) for line in Path(sample.path("truth.jsonl")).read_text(encoding="utf-8").splitlines()
    ]


def test_building_again_gives_the_same_bytes_and_the_content_that_ships(tmp_path: Path) -> None:
    build(tmp_path / "once")
    build(tmp_path / "again")
    for name in sample.NAMES:
        once, shipped = (tmp_path / "once" / name).read_bytes(), Path(sample.path(name)).read_bytes()
        assert once == (tmp_path / "again" / name).read_bytes()
        # Compressors may differ in their bytes between releases; what they hold may not.
        assert unpacked(once, name) == unpacked(shipped, name), (
            f"run python -m ctllm_ray.sample.build: {name} is old"
        )


def unpacked(content: bytes, name: str) -> bytes:
    if name.endswith(".zst"):
        return zstandard.ZstdDecompressor().decompress(content)
    return gzip.decompress(content) if name.endswith(".gz") else content


def test_an_unknown_name_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(InputError, match=r"truth\.jsonl"):
        sample.path("pages.parquet")


def test_every_page_has_one_row_of_truth_and_every_row_has_its_page(
    records: dict[str, dict], sites: dict[str, bytes], truth: list[dict]
) -> None:
    pages = Counter([("pages.jsonl.zst", url) for url in records] + [("pages.warc.gz", url) for url in sites])
    assert pages == Counter((row["file"], row["url"]) for row in truth)
    assert max(pages.values()) == 1


def test_a_few_hundred_pages_mostly_clean_in_under_600_kb(truth: list[dict]) -> None:
    kinds = Counter(row["kind"] for row in truth)
    assert 300 <= len(truth) <= 450
    assert kinds["clean"] >= 0.5 * len(truth)
    assert kinds["noise"] >= 80
    assert kinds["copy"] >= 48
    assert sum(Path(sample.path(name)).stat().st_size for name in sample.NAMES) < 600_000


def test_every_genre_defect_and_edit_is_there(truth: list[dict]) -> None:
    genres = Counter(row["genre"] for row in truth if row["kind"] == "clean")
    defects = Counter(row["defect"] for row in truth if row["kind"] == "noise")
    edits = Counter(row["defect"] for row in truth if row["kind"] == "copy")
    assert set(genres) == {text.kind for text in stock.clean_texts()}
    assert set(defects) == {*rubbish.KINDS, *damage.DEFECTS, *(text.kind for text in stock.unwanted_texts())}
    assert set(edits) == {*copies.EDITS, "as_html"}
    assert min(genres.values()) >= 3
    assert min(defects.values()) >= 2
    assert min(edits.values()) >= 6


def test_every_url_is_under_a_reserved_name(truth: list[dict]) -> None:
    assert all(urlsplit(row["url"]).hostname.endswith(".example") for row in truth)


def test_every_copy_names_an_original_that_is_a_clean_text_record(
    records: dict[str, dict], truth: list[dict]
) -> None:
    clean = {row["url"] for row in truth if row["kind"] == "clean"}
    originals = [row["copy_of"] for row in truth if row["kind"] == "copy"]
    assert set(originals) <= clean & set(records)
    assert all(row["copy_of"] is None for row in truth if row["kind"] != "copy")


def test_a_copy_differs_from_its_original_unless_it_is_exact(
    records: dict[str, dict], truth: list[dict]
) -> None:
    for row in truth:
        if row["kind"] == "copy" and row["url"] in records:
            same = records[row["url"]]["text"] == records[row["copy_of"]]["text"]
            assert same == (row["defect"] == "exact")


@pytest.mark.parametrize(
    ("defect", "read", "written"),
    [
        ("mojibake_utf8_as_gbk", "gb18030", "utf-8"),
        ("mojibake_gbk_as_latin1", "latin-1", "gb18030"),
        ("mojibake_utf8_as_latin1", "latin-1", "utf-8"),
        ("mojibake_big5_as_gbk", "gb18030", "big5"),
    ],
)
def test_reversible_mojibake_turns_back_into_sentences_of_its_text(
    records: dict[str, dict], truth: list[dict], defect: str, read: str, written: str
) -> None:
    texts = {text.key: text.body for text in stock.clean_texts()}
    found = [row for row in truth if row["defect"] == defect]
    for row in found:
        damaged = records[row["url"]]["text"]
        repaired = b"".join(b"\x80" if c == "€" else c.encode(read) for c in damaged).decode(written)
        assert len(damaged) > 100
        assert all(line in texts[row["stock"]] for line in repaired.split("\n"))
    assert found


def test_html_pages_hold_their_text_in_the_encoding_that_truth_names(
    sites: dict[str, bytes], truth: list[dict]
) -> None:
    texts = {text.key: text.body for text in stock.clean_texts()}
    for row in truth:
        if row["file"] == "pages.warc.gz" and row["stock"]:
            page = sites[row["url"]].decode(row["charset"])
            first = texts[row["stock"]].split("\n")[0]
            assert first[:6].strip() in page


def test_html_pages_come_in_four_encodings_some_wrongly_declared(
    sites: dict[str, bytes], truth: list[dict]
) -> None:
    charsets = Counter(row["charset"] for row in truth if row["file"] == "pages.warc.gz")
    assert set(charsets) >= {"utf-8", "utf-8-sig", "gb18030", "big5", "big5hkscs"}
    undeclared = [url for url, page in sites.items() if b"charset" not in page]
    assert len(undeclared) >= 10


def test_a_shipped_archive_is_one_gzip_member_per_record(sites: dict[str, bytes]) -> None:
    content = Path(sample.path("pages.warc.gz")).read_bytes()
    first = next(iter(ArchiveIterator(io.BytesIO(content))))
    assert first.record_type == WarcRecordType.warcinfo
    assert content.count(b"\x1f\x8b\x08") >= len(sites) + 1


def test_the_exam_has_one_right_choice_of_four_and_its_sums_are_right() -> None:
    questions = list(exam.rows())
    assert len({question["question"] for question in questions}) == len(questions) > 60
    for question in questions:
        choices = [question[letter] for letter in exam.LETTERS]
        assert len(set(choices)) == 4
        one, sign, two, *_ = (
            question["question"].split(" ") if "等于" in question["question"] else ("0", "加", "0")
        )
        if question["subject"] == "elementary_mathematics":
            assert question[question["answer"]] == str(int(one) + (int(two) if sign == "加" else -int(two)))
    letters = Counter(question["answer"] for question in questions)
    assert min(letters[letter] for letter in exam.LETTERS) > len(questions) / 8
