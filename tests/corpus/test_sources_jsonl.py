"""JSON lines: every line once, whatever the cuts and the compression; every bad line one error."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from ctllm_ray.base.storage import list_files
from ctllm_ray.corpus.engine.splits import SplitLimits
from ctllm_ray.corpus.sources.jsonl import spans

from .source_rows import errors, positions, rows, tables

PACKERS = {
    ".gz": lambda data: gzip.compress(data, 6),
    ".zst": lambda data: zstandard.ZstdCompressor(level=3).compress(data),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def sample(count: int, seed: int = 0) -> bytes:
    """Lines of very different lengths, some blank, with characters of one to four bytes."""
    dice = random.Random(seed)
    lines = []
    for number in range(count):
        text = "".join(dice.choice("的一是不了aé𠀀。\n") for _ in range(dice.choice([0, 1, 10, 300, 3000])))
        lines.append(json.dumps({"text": text, "url": f"http://a.cn/{number}"}, ensure_ascii=False))
        if dice.random() < 0.1:
            lines.append(dice.choice(["", " ", "\t\r"]))
    return "\n".join(lines).encode()


def test_a_line_becomes_a_row_with_the_named_fields_and_its_byte_offset(tmp_path: Path) -> None:
    first = (
        '{"raw_content": "你好", "url": "http://a.cn", "timestamp": "2021-04-04", "title": "题"}\n'.encode()
    )
    path = write(tmp_path / "a.jsonl", first + b'{"raw_content": ""}')
    found = rows("jsonl", path, text="raw_content", date="timestamp")
    assert found[0] == {
        "id": "in/a.jsonl#0", "text": "你好", "url": "http://a.cn", "title": "题", "date": "2021-04-04",
        "raw": None, "content_type": None, "reject": None,
    }  # fmt: skip
    assert found[1]["id"] == f"in/a.jsonl#{len(first)}"
    assert found[1]["text"] == ""
    assert found[1]["url"] is None


def test_url_title_and_date_of_other_types_are_strings_or_null(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "x", "url": null, "title": ["t"], "date": 20210404}\n')
    (row,) = rows("jsonl", path)
    assert (row["url"], row["title"], row["date"], row["reject"]) == (None, None, "20210404", None)


def test_html_field_goes_to_raw_and_text_serves_where_it_is_null(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", '{"html": "<p>好", "text": "x"}\n{"html": null, "text": "y"}\n{}'.encode()
    )
    first, second, third = rows("jsonl", path, html="html")
    assert (first["text"], first["raw"], first["content_type"]) == (
        None,
        "<p>好".encode(),
        "text/html; charset=utf-8",
    )
    assert (second["text"], second["raw"]) == ("y", None)
    assert third["reject"] == "error.missing_field"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"text": "cut', "error.invalid_json"),
        (b"[" * 5000, "error.invalid_json"),
        (b'{"text": "\xc4\xe3\xba\xc3"}', "error.invalid_utf8"),
        (b'{"txt": "a"}', "error.missing_field"),
        (b'{"text": null}', "error.missing_field"),
        (b'{"text": 5}', "error.wrong_type"),
        (b'{"text": ["a"]}', "error.wrong_type"),
        (b'"a string"', "error.wrong_type"),
        (b"null", "error.wrong_type"),
        (b'{"text": "' + b"x" * (1 << 20) + b'"}', "error.record_too_large"),
    ],
)
def test_a_bad_line_is_one_error_with_its_first_bytes_between_good_neighbours(
    tmp_path: Path, line: bytes, error: str
) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "a"}\n' + line + b'\n{"text": "b"}\n')
    before, bad, after = rows("jsonl", path)
    assert (before["text"], after["text"]) == ("a", "b")
    assert (bad["reject"], bad["raw"], bad["text"]) == (error, line[:64], None)
    assert positions([bad, after]) == [14, 14 + len(line) + 1]
    assert bad["title"]  # the reason in words


def test_an_escaped_nul_passes_and_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "a\\u0000b"}\r\n')
    assert [row["text"] for row in rows("jsonl", path)] == ["a\0b"]


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\r\n\n"])
def test_a_file_without_lines_has_no_records(tmp_path: Path, content: bytes) -> None:
    assert rows("jsonl", write(tmp_path / "a.jsonl", content)) == []


@pytest.mark.parametrize("suffix", ["", *PACKERS])
def test_any_cutting_into_spans_reads_the_same_records(tmp_path: Path, suffix: str) -> None:
    content = sample(60)
    path = write(tmp_path / f"a.jsonl{suffix}", PACKERS[suffix](content) if suffix else content)
    whole = rows("jsonl", path)
    assert len({row["id"] for row in whole}) == len(whole) == 60
    for split_bytes in (400, 4096, 5000, 10_000_000):
        assert rows("jsonl", path, split_bytes=split_bytes) == whole


def test_every_place_of_a_cut_between_two_spans_reads_each_line_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text":"a"}\n\n{"text":"bb"}\n{"text":"c"}')
    size = path.stat().st_size
    for split_bytes in range(1, size + 2):
        assert [row["text"] for row in rows("jsonl", path, split_bytes=split_bytes)] == ["a", "bb", "c"]


def test_compression_changes_no_id_and_no_record(tmp_path: Path) -> None:
    content = sample(50, seed=1)
    plain = rows("jsonl", write(tmp_path / "a.jsonl", content))
    for suffix, pack in PACKERS.items():
        packed = rows("jsonl", write(tmp_path / f"a.jsonl{suffix}", pack(content)))
        assert [row | {"id": ""} for row in packed] == [row | {"id": ""} for row in plain]
        assert positions(packed) == positions(plain)


@pytest.mark.parametrize("suffix", PACKERS)
def test_all_members_of_a_compressed_file_are_read(tmp_path: Path, suffix: str) -> None:
    content = sample(40, seed=2)
    pack = PACKERS[suffix]
    packed = pack(content[:1000]) + pack(b"") + pack(content[1000:1001]) + pack(content[1001:])
    found = rows("jsonl", write(tmp_path / f"a.jsonl{suffix}", packed))
    assert [row["text"] for row in found] == [
        row["text"] for row in rows("jsonl", write(tmp_path / "a.jsonl", content))
    ]


def test_zstd_skippable_frames_and_padding_behind_gzip_members_are_no_damage(tmp_path: Path) -> None:
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    half = b'{"text": "a"}\n'
    zst = skippable + zstandard.compress(half) + skippable + zstandard.compress(half) + skippable
    assert len(rows("jsonl", write(tmp_path / "a.jsonl.zst", zst))) == 2
    gz = gzip.compress(half) + bytes(8192) + gzip.compress(half) + bytes(512)
    assert len(rows("jsonl", write(tmp_path / "a.jsonl.gz", gz))) == 2


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_cut_file_keeps_every_record_before_the_cut_and_has_one_truncated(
    tmp_path: Path, suffix: str
) -> None:
    dice = random.Random(3)
    content = sample(150, seed=3)
    packed = PACKERS[suffix](content)
    whole = rows("jsonl", write(tmp_path / "whole.jsonl", content))
    for cut in [1, 2, len(packed) - 1, *dice.sample(range(3, len(packed) - 1), 6)]:
        path = write(tmp_path / f"a.jsonl{suffix}", packed[:cut])
        found = rows("jsonl", path)
        assert errors(found) == ["error.truncated"]
        assert [row["text"] for row in found[:-1]] == [row["text"] for row in whole[: len(found) - 1]]
        assert found[-1]["title"]
        for split_bytes in (64, 4096):
            assert rows("jsonl", path, split_bytes=split_bytes) == found


def test_a_cut_zstd_file_keeps_all_that_its_frame_had_completed(tmp_path: Path) -> None:
    packer = zstandard.ZstdCompressor().compressobj()
    flushed = packer.compress(b'{"text": "a"}\n{"text": "b"}\n') + packer.flush(
        zstandard.COMPRESSOBJ_FLUSH_BLOCK
    )
    path = write(tmp_path / "a.jsonl.zst", flushed + packer.flush()[:-1])
    assert [(row["text"], row["reject"]) for row in rows("jsonl", path)] == [
        ("a", None), ("b", None), (None, "error.truncated"),
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])  # zstd frames carry a checksum only where asked
def test_a_flipped_bit_in_a_compressed_file_ends_it_with_one_truncated(tmp_path: Path, suffix: str) -> None:
    packed = bytearray(PACKERS[suffix](sample(300, seed=4)))
    packed[len(packed) // 2] ^= 0x10
    found = rows("jsonl", write(tmp_path / f"a.jsonl{suffix}", bytes(packed)))
    assert errors(found)[-1] == "error.truncated"
    assert errors(found).count("error.truncated") == 1


def test_something_else_under_a_compressed_name_is_one_error(tmp_path: Path) -> None:
    for suffix in PACKERS:
        assert errors(rows("jsonl", write(tmp_path / f"a.jsonl{suffix}", b'{"text": "a"}\n'))) == [
            "error.truncated"
        ]


def test_compressed_data_under_a_plain_name_is_one_error_that_names_the_suffix(tmp_path: Path) -> None:
    (row,) = rows("jsonl", write(tmp_path / "a.jsonl", gzip.compress(sample(5))))
    assert row["reject"] == "error.truncated"
    assert ".gz" in row["title"]


def test_a_number_with_more_digits_than_python_reads_is_one_error(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", b'{"text": "a"}\n{"text": "b", "n": ' + b"9" * 5000 + b'}\n{"text": "c"}\n'
    )
    found = rows("jsonl", path)
    assert [row["text"] for row in found] == ["a", None, "c"]
    assert errors(found) == ["error.invalid_json"]


def array(count: int = 9) -> list[bytes]:
    """The parts of an array, each an object with objects inside."""
    parts = [b'{"text": "%d", "parts": [{"a": 1}, {"a": 2}]},\n' % number for number in range(count)]
    return [b"[" + parts[0], *parts[1:-1], parts[-1].replace(b"]},", b"]}]")]


@pytest.mark.parametrize("damaged", [0, 4, 8])
def test_a_damaged_object_of_an_array_costs_no_other_one(tmp_path: Path, damaged: int) -> None:
    parts = array()
    parts[damaged] = parts[damaged].replace(b': [{"a"', b': ?{"a"')
    found = rows("jsonl", write(tmp_path / "a.json", b"".join(parts)))
    assert [row["text"] for row in found if row["text"]] == [str(n) for n in range(9) if n != damaged]
    assert (
        len(errors(found)) == 1 or damaged == 0
    )  # what a record looks like is not known before the first one


@pytest.mark.parametrize("beginning", [b"\x93PACK", b"\0", b"?{"])
def test_an_array_with_a_damaged_beginning_loses_its_first_object(tmp_path: Path, beginning: bytes) -> None:
    for joint in (b",\n", b", "):
        content = beginning + b"".join(array()).replace(b",\n", joint)[len(beginning) :]
        found = rows("jsonl", write(tmp_path / "a.json", content))
        assert [row["text"] for row in found if row["text"]] == list("12345678")


@pytest.mark.parametrize("damaged", [0, 1])
def test_an_array_goes_on_with_the_first_object_behind_a_damaged_member(tmp_path: Path, damaged: int) -> None:
    members = [gzip.compress(b"".join(array()[at : at + 3])) for at in (0, 3, 6)]
    members[damaged] = members[damaged][:20] + bytes(20) + members[damaged][40:]
    found = rows("jsonl", write(tmp_path / "a.json.gz", b"".join(members)))
    lost = range(3 * damaged, 3 * damaged + 3)
    assert [row["text"] for row in found if row["text"]] == [str(n) for n in range(9) if n not in lost]


def test_json_lines_with_a_damaged_beginning_stay_lines(tmp_path: Path) -> None:
    content = b'x"text": "0"}\n' + b"".join(
        b'{"text": "%d", "n": [{"a": 1}, {"a": 2}]}\n' % n for n in (1, 2, 3)
    )
    found = rows("jsonl", write(tmp_path / "a.jsonl", content))
    assert [row["text"] for row in found] == [None, "1", "2", "3"]


def test_tables_are_closed_at_the_batch_size(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"".join(b'{"text": "%s"}\n' % (b"x" * 100) for _ in range(100)))
    found = tables("jsonl", path, SplitLimits(1 << 20, 64, batch_bytes=1000))
    assert [table.num_rows for table in found] == [10] * 10


def test_a_compressed_file_gets_at_most_32_spans_and_a_small_one_is_not_opened(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.zst", zstandard.compress(sample(400)))
    (file,) = list_files(str(path))
    assert len(spans(file, 1)) == 32
    assert spans(file, 1)[-1][1] is None
    path.unlink()
    assert spans(file, file.size) == [(0, None)]


_HUGE = """
import resource, sys
sys.path[:0] = [{tests!r}]
from corpus.source_rows import rows
from ctllm_ray.corpus.engine.splits import SplitLimits
rows("jsonl", {warm!r}, SplitLimits(16 << 20, 64))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = rows("jsonl", {path!r}, SplitLimits(16 << 20, 64))
print([(row["reject"], len(row["text"] or "")) for row in found])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_line_of_500_megabytes_is_one_error_and_is_never_held(tmp_path: Path) -> None:
    packer = zstandard.ZstdCompressor().compressobj()
    path = tmp_path / "a.jsonl.zst"
    with path.open("wb") as out:
        out.write(packer.compress(b'{"text": "a"}\n{"text": "'))
        for _ in range(500):
            out.write(packer.compress(b"x" * (1 << 20)))
        out.write(packer.compress(b'"}\n{"text": "b"}\n') + packer.flush())
    warm = write(tmp_path / "warm.jsonl", b'{"text": "a"}\n')
    script = _HUGE.format(tests=str(Path(__file__).parents[1]), warm=str(warm), path=str(path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found, grown_kb = done.stdout.splitlines()
    assert found == "[(None, 1), ('error.record_too_large', 0), (None, 1)]"
    assert int(grown_kb) < 150_000  # a record's limit, one feed's output (32 MiB), and copies of both


def test_the_real_crawl_shards_have_the_records_that_their_list_states(shared_data: Path) -> None:
    for part, records in (("000", 5663), ("003", 5662)):
        path = shared_data / "web_zh_raw" / f"part-{part}.jsonl.zst"
        found = rows("jsonl", path, text="raw_content", html="html", date="timestamp")
        assert len(found) == records
        assert errors(found) == []
        assert (
            rows("jsonl", path, split_bytes=1 << 19, text="raw_content", html="html", date="timestamp")
            == found
        )
