"""Every byte and every record of an input is accounted for: what was lost of which file, and when a run stops."""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
import socket
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from ctllm_ray.base.errors import ErrorShareExceeded, InputError
from ctllm_ray.base.recipe import Recipe, parse_recipe
from ctllm_ray.corpus import documents, pipeline
from ctllm_ray.corpus.engine import input_files, splits
from ctllm_ray.corpus.engine.losses import describe
from ctllm_ray.corpus.engine.progress import SectionProgress
from ctllm_ray.corpus.engine.section import Done
from ctllm_ray.corpus.report.render import write_corpus_report
from ctllm_ray.shards.manifest import Manifest

from .conftest import page, run_here
from .test_sources_warc import GOOD, record, response

ANY = {"max_error_share": 1, "max_unfinished_file_share": 1}


def lines(count: int, first: int = 0) -> bytes:
    rows = [{"text": page(n), "number": n} for n in range(first, first + count)]
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def made(folder: Path, use: str = "jsonl", pattern: str = "*", **data: Any) -> Recipe:
    inputs = data.pop("inputs", None) or [{"use": use, "path": f"{folder}/{pattern}", "name": "in"}]
    plain = {"name": "ledger", "version": "1", "seed": 1, "root": str(folder.parent / "out")}
    data = {"inputs": inputs, "max_error_share": 0.01} | data
    return parse_recipe(plain | {"data": data, "stages": [{"use": "extract"}]})


def cleaned(recipe: Recipe) -> Manifest:
    """The manifest of the section, after a look at both laws."""
    finished = pipeline.clean(recipe, run_here)
    counts = finished.counts
    gone = [n for key, n in counts.items() if key.startswith(("reject:", "skipped."))]
    assert counts["in"] == counts["kept"] + sum(gone)
    for file in finished.inputs:
        assert file["bytes"] == file["bytes_read"] + file["bytes_lost"]
        assert file["bytes_read"] >= 0 <= file["bytes_lost"]
    assert sum(file["records"] for file in finished.inputs) == counts["in"]
    return finished


def kept(recipe: Recipe, finished: Manifest) -> list[str]:
    parts = documents.parts(recipe.folder("clean"), finished)
    return [text for table in documents.tables(parts, "kept", ["text"]) for text in table["text"].to_pylist()]


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    folder = tmp_path / "crawl"
    folder.mkdir()
    return folder


def cut_parquet(path: Path) -> None:
    pq.write_table(pa.table({"text": [page(n) for n in range(300)]}), path)
    path.write_bytes(path.read_bytes()[:-40])


#: Files of 300 records of which nothing or little can be read, and what is said of them.
LOST: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "gzip under a plain name": (
        "b.jsonl",
        lambda path: path.write_bytes(gzip.compress(lines(300))),
        r"the file is compressed; rename it to end with \.gz",
    ),
    "a cut gzip": (
        "b.jsonl.gz",
        lambda path: path.write_bytes(gzip.compress(lines(300))[:2000]),
        "the compressed stream is truncated",
    ),
    "text under a name of gzip": (
        "b.jsonl.gz",
        lambda path: path.write_bytes(lines(300)),
        "stream is corrupt",
    ),
    "a link to nothing": ("b.jsonl", lambda path: path.symlink_to("nowhere"), "it is a link to nothing"),
    "a pipe": ("b.jsonl", os.mkfifo, "no regular file"),
    "a folder": ("b.jsonl", Path.mkdir, "it is a folder"),
}


@pytest.mark.parametrize("case", LOST)
def test_a_lost_file_stops_the_run_and_is_named(crawl: Path, case: str) -> None:
    name, write, reason = LOST[case]
    (crawl / "a.jsonl").write_bytes(lines(300))
    write(crawl / name)
    with pytest.raises(ErrorShareExceeded, match=rf"(?s)in/{name}: .*{reason}"):
        cleaned(made(crawl, pattern="*.jsonl*"))


@pytest.mark.parametrize("case", LOST)
def test_of_a_lost_file_the_others_are_read(crawl: Path, case: str) -> None:
    name, write, _ = LOST[case]
    (crawl / "a.jsonl").write_bytes(lines(300))
    write(crawl / name)
    finished = cleaned(made(crawl, pattern="*.jsonl*", **ANY))
    good, lost = finished.inputs
    assert finished.counts["kept"] >= 300
    assert (good["bytes_lost"], "damage" in good) == (0, False)
    assert (lost["name"], lost["unfinished"]) == (name, True)


def test_the_unread_records_of_a_file_weigh_as_many_as_its_bytes_tell(crawl: Path) -> None:
    for name in "abc":
        (crawl / f"{name}.jsonl").write_bytes(lines(300))
    (crawl / "d.jsonl.gz").write_bytes(lines(300))  # not gzip
    recipe = made(crawl)
    with pytest.raises(ErrorShareExceeded, match=r"25\.00% of 1200 records could not be read"):
        cleaned(recipe)
    lost = input_files.find_input_files(recipe.folder("clean"), "in/d.jsonl.gz")[0]
    assert (lost["missing"], lost["estimated"]) == (299, True)
    assert "missing: about 299, error.truncated 1" in describe(lost)


@pytest.mark.parametrize("end", [b"\r", b" ", b"\n\xef\xbb\xbf", b"\xef\xbb\xbf", b",\n"])
def test_objects_without_line_ends_and_joined_files_are_read(crawl: Path, end: bytes) -> None:
    content = lines(300).replace(b"\n", end)
    (crawl / "a.jsonl").write_bytes(b"[" + content.removesuffix(end) + b"]" if end == b",\n" else content)
    recipe = made(crawl)
    assert kept(recipe, cleaned(recipe)) == [page(n) for n in range(300)]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_long_array_is_read_in_one_split_and_its_positions_are_offsets(crawl: Path, suffix: str) -> None:
    rows = [{"text": page(n)} for n in range(3000)]
    content = json.dumps(rows, ensure_ascii=False, indent=1).encode()
    packed = gzip.compress(content) if suffix else content
    (crawl / f"a.json{suffix}").write_bytes(packed)
    recipe = made(crawl, split_mb=0.05)
    finished = cleaned(recipe)
    assert kept(recipe, finished) == [row["text"] for row in rows]
    parts = documents.parts(recipe.folder("clean"), finished)
    ids = [id_ for table in documents.tables(parts, "kept", ["id"]) for id_ in table["id"].to_pylist()]
    last = int(ids[-1].rpartition("#")[2])
    assert content[last:].startswith(b'{\n  "text"')


def test_a_damaged_object_of_an_array_is_one_error(crawl: Path) -> None:
    content = json.dumps([{"text": page(n)} for n in range(100)], ensure_ascii=False)
    (crawl / "a.json").write_text(
        content.replace('{"text": "' + page(50)[:3], "{text: " + page(50)[:3]), "utf-8"
    )
    recipe = made(crawl, max_error_share=0.02)
    finished = cleaned(recipe)
    assert finished.counts == {"in": 100, "kept": 99, "reject:error.invalid_json": 1}
    assert kept(recipe, finished) == [page(n) for n in range(100) if n != 50]


def test_what_nobody_reads_costs_no_record(crawl: Path) -> None:
    text = json.dumps(page(1))
    (crawl / "a.jsonl").write_bytes(
        b'{"text": %s, "score": NaN, "more": [Infinity, -Infinity]}\n' % text.encode()
        + b'{"text": %s, "meta": "\\ud83d"}\n' % text.encode()
        + b'{"text": %s, "meta": "\xc4\xe3"}\n' % text.encode()
        + b'{"text": "a\tb\x0bc"}\n'
        + b'{"text": "a\\ud83db", "title": "x\\udc00"}\n'
        + b'{"text": "a"}{"text": "b"}\n'
    )
    recipe = made(crawl)
    finished = cleaned(recipe)
    assert kept(recipe, finished) == [page(1)] * 3 + ["a\tb\x0bc", "a\ufffdb", "a", "b"]
    assert finished.inputs[0]["repaired"] == {"half_surrogate": 1}


# --- containers -------------------------------------------------------------------------------------------------------


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]


@pytest.mark.parametrize("where", ["header", "middle", "checksum"])
def test_behind_a_damaged_gzip_member_reading_goes_on(crawl: Path, where: str) -> None:
    members = [gzip.compress(record(response(b"<p>" + page(n).encode()))) for n in range(20)]
    at = {"header": 0, "middle": len(members[7]) // 2, "checksum": len(members[7]) - 6}[where]
    members[7] = flip(members[7], at)
    (crawl / "a.warc.gz").write_bytes(b"".join(members))
    finished = cleaned(made(crawl, "warc", max_error_share=0.06))
    assert finished.counts == {"in": 20, "kept": 19, "reject:error.truncated": 1}
    (file,) = finished.inputs
    assert file["bytes_lost"] == len(members[7])
    assert "unfinished" not in file


def test_behind_a_damaged_zstd_frame_reading_goes_on(crawl: Path) -> None:
    packer = zstandard.ZstdCompressor(write_checksum=True)
    frames = [packer.compress(lines(10, 10 * n)) for n in range(9)]
    frames[4] = flip(frames[4], 30)
    (crawl / "a.jsonl.zst").write_bytes(b"".join(frames))
    recipe = made(crawl, **ANY)
    finished = cleaned(recipe)
    texts = kept(recipe, finished)
    assert [page(n) for n in (*range(40), *range(50, 90))] == [text for text in texts if text]
    (file,) = finished.inputs
    assert (
        file["bytes_lost"] >= len(frames[4]) // 4
    )  # what was decoded of the frame before the damage showed is read
    assert file["missing"] >= 1


def test_long_windows_of_zstd_and_its_other_suffix_are_read(crawl: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters)
    stream = packer.compressobj()
    (crawl / "a.jsonl.zstd").write_bytes(stream.compress(lines(50)) + stream.flush())
    assert cleaned(made(crawl)).counts == {"in": 50, "kept": 50}


def test_a_file_that_changes_while_it_is_read_is_told(crawl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (crawl / "a.jsonl").write_bytes(lines(100))
    recipe = made(crawl, **ANY)
    planned = splits.list_splits

    def list_then_cut(data: Any) -> list[splits.Split]:
        found = planned(data)
        (crawl / "a.jsonl").write_bytes(lines(60))
        return found

    monkeypatch.setattr(splits, "list_splits", list_then_cut)
    finished = pipeline.clean(recipe, run_here)
    (file,) = finished.inputs
    lost = len(lines(100)) - len(lines(60))
    assert (file["bytes_lost"], file["unfinished"]) == (lost, True)
    assert file["damage"] == [f"its size changed by {-lost:+} bytes after it was listed"]
    assert file["missing"] in range(35, 46)


# --- archives ---------------------------------------------------------------------------------------------------------

TYPES = {
    "text/html charset=utf-8": "",
    "text/html, text/html; charset=gbk": "",
    '"text/html"': "",
    "html": "",
    "application/rss+xml": "",
    "text/xml": "",
    "application/octet-stream": "",
    "": "",
    "image/png": "image",
    "application/pdf": "pdf",
    "application/vnd.ms-excel": "other_type",
    "text/css": "css",
}


def test_every_record_of_an_archive_is_read_or_counted_as_skipped(crawl: Path) -> None:
    body = b"<html><body><p>" + page(3).encode() + b"</p></body></html>"
    others = [
        record(b"GET / HTTP/1.1\r\n\r\n", "request", "application/http; msgtype=request"),
        record(response(b""), "revisit"),
        record(b"a: b", "metadata", "application/warc-fields"),
        record(b"a.cn. 300 IN A 1.2.3.4", "response", "text/dns"),
        record(b"x", "somekind"),
        record(response(b"\x00\x01" * 100, "application/octet-stream")),
    ]
    pages = [record(response(body, content_type)) for content_type in TYPES]
    (crawl / "a.warc").write_bytes(b"".join([*others, *pages]))
    finished = cleaned(made(crawl, "warc"))
    skipped = {"request", "revisit", "metadata", "not_http", "unknown_type", "not_text"}
    skipped |= {why for why in TYPES.values() if why}
    assert finished.counts == {"in": 18, "kept": 8} | {f"skipped.{why}": 1 for why in skipped}
    assert (finished.documents, finished.count_skipped()["skipped.pdf"]) == (8, 1)


def test_an_input_of_other_records_is_an_error_that_says_what_they_were(crawl: Path) -> None:
    (crawl / "a.warc").write_bytes(record(b"GET / HTTP/1.1\r\n\r\n", "request") * 3)
    with pytest.raises(InputError, match=r"no document is in the 1 files .* of 3 records: skipped.request 3"):
        cleaned(made(crawl, "warc"))


def test_field_names_in_lower_case_and_a_wrong_length_cost_no_page(crawl: Path) -> None:
    lower = GOOD.replace(b"WARC-Type", b"warc-type").replace(b"Content-Length", b"content-length")
    long = GOOD.replace(b"Content-Length: ", b"Content-Length: 9")
    short = GOOD.replace(b"Content-Length: ", b"Content-Length: 0")
    (crawl / "a.warc").write_bytes(lower + long + short + GOOD)
    recipe = made(crawl, "warc")
    assert cleaned(recipe).counts == {"in": 4, "kept": 4}


ARC = (
    b"filedesc://a.arc 0.0.0.0 20080102030405 text/plain %d\n%s\n"
    b"http://a.cn/1 1.2.3.4 20080102030405 text/html %d\n%s\n"
    b"dns:a.cn 1.2.3.4 20080102 text/dns 9\nwhatever!\n"
)


def test_an_arc_file_is_read(crawl: Path) -> None:
    body = response(b"<html><body><p>" + page(3).encode() + b"</p></body></html>")
    version = b"1 0 InternetArchive\nURL IP-address Archive-date Content-type Archive-length\n"
    (crawl / "a.arc.gz").write_bytes(gzip.compress(ARC % (len(version), version, len(body), body)))
    recipe = made(crawl, "warc")
    finished = cleaned(recipe)
    assert finished.counts == {"in": 3, "kept": 1, "skipped.filedesc": 1, "skipped.not_http": 1}
    parts = documents.parts(recipe.folder("clean"), finished)
    (row,) = [row for table in documents.tables(parts, "kept") for row in table.to_pylist()]
    assert (row["url"], row["date"]) == ("http://a.cn/1", "2008-01-02T03:04:05Z")
    assert row["text"].strip() == page(3)


def test_the_http_status_is_a_score_and_a_rule_may_ask_for_it(crawl: Path) -> None:
    gone = record(response(b"<p>" + page(4).encode()).replace(b"200 OK", b"404 Not Found"))
    (crawl / "a.warc").write_bytes(GOOD + gone)
    (crawl / "b.jsonl").write_bytes(lines(1))
    inputs = [
        {"use": "warc", "path": f"{crawl}/*.warc", "name": "warc"},
        {"use": "jsonl", "path": f"{crawl}/*.jsonl", "name": "jsonl"},
    ]
    rule = {"use": "url.http_status", "min": 200, "max": 299}
    plain = made(crawl, inputs=inputs).model_dump(mode="json")
    recipe = parse_recipe(plain | {"stages": [{"use": "extract"}, {"use": "measure", "rules": [rule]}]})
    finished = cleaned(recipe)
    assert finished.counts == {"in": 3, "kept": 2, "reject:url.http_status": 1}
    parts = documents.parts(recipe.folder("clean"), finished)
    rows = [
        row for kind in ("kept", "rejected") for t in documents.tables(parts, kind) for row in t.to_pylist()
    ]
    statuses = [row["scores"]["url.http_status"] for row in rows]
    assert (statuses[0], math.isnan(statuses[1]), statuses[2]) == (200.0, True, 404.0)
    without = parse_recipe(plain | {"version": "2"})
    parts = documents.parts(without.folder("clean"), cleaned(without))
    rows = [row for table in documents.tables(parts, "kept") for row in table.to_pylist()]
    assert [row["scores"]["url.http_status"] for row in rows] == [200.0, 404.0, None]


# --- one odd file -----------------------------------------------------------------------------------------------------

ODD: dict[str, tuple[Any, str]] = {
    "another column": (pa.table({"content": ["a"] * 5}), "did you mean 'content'"),
    "no values": (pa.table({"text": pa.nulls(5)}), "column 'text' has no values"),
    "lists": (pa.table({"text": [["a"]] * 5}), r"column 'text' of type list.* cannot be used as text"),
    "two of one name": (
        pa.Table.from_arrays([pa.array(["a"] * 5), pa.array(["b"] * 5)], names=["text", "text"]),
        "2 columns are named 'text'",
    ),
    "an error page": (b"<html>404</html>", "the file is not Parquet"),
}


@pytest.mark.parametrize("case", ODD)
def test_one_odd_parquet_file_costs_itself(crawl: Path, case: str) -> None:
    table, reason = ODD[case]
    for n in range(9):
        pq.write_table(pa.table({"text": [page(n)] * 5}), crawl / f"{n}.parquet")
    if isinstance(table, bytes):
        (crawl / "odd.parquet").write_bytes(table)
    else:
        pq.write_table(table, crawl / "odd.parquet")
    with pytest.raises(ErrorShareExceeded, match=rf"(?s)in/odd.parquet: .*{reason}"):
        cleaned(made(crawl, "parquet"))
    finished = cleaned(made(crawl, "parquet", **ANY))
    assert (finished.counts["in"], finished.counts["kept"]) == (46, 45)
    assert finished.inputs[-1].get("missing", 4) == 4


def test_columns_of_views_are_read_and_odd_columns_that_may_be_absent_are_null(crawl: Path) -> None:
    columns = {"text": pa.array([page(1)], pa.string_view()), "title": [["a"]], "url": pa.nulls(1)}
    pq.write_table(pa.table(columns), crawl / "a.parquet")
    recipe = made(crawl, "parquet")
    assert kept(recipe, cleaned(recipe)) == [page(1)]


NAMES = ["t::u.jsonl", "two words.jsonl", "新闻.jsonl", "a[2024].jsonl", "a#b%20.jsonl", "-x.jsonl"]


@pytest.mark.parametrize("name", NAMES)
def test_files_of_all_names_are_read_alone_and_under_a_glob(crawl: Path, name: str) -> None:
    (crawl / name).write_bytes(lines(3))
    assert cleaned(made(crawl)).inputs[0]["name"] == name
    alone = made(crawl, pattern=name.replace("[", "[[]")).model_dump(mode="json")
    assert cleaned(parse_recipe(alone | {"version": "2"})).counts["kept"] == 3


def test_a_name_that_is_not_utf8_is_read_and_its_ids_are_escaped(crawl: Path) -> None:
    raw = os.fsencode(crawl) + b"/" + "新闻".encode("gbk") + b".jsonl"
    with open(raw, "wb") as stream:
        stream.write(lines(3))
    recipe = made(crawl)
    assert cleaned(recipe).inputs[0]["name"] == "%D0%C2%CE%C5.jsonl"
    assert cleaned(recipe).counts["kept"] == 3  # the finished section is found again


def test_a_bracket_in_a_folder_is_explained(crawl: Path) -> None:
    folder = crawl / "crawl[2024]"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(lines(3))
    with pytest.raises(InputError) as caught:
        cleaned(made(crawl, pattern="crawl[2024]/*.jsonl"))
    assert "write [[] for the character itself" in caught.value.remedy
    assert cleaned(made(crawl, pattern="crawl[[]2024]/*.jsonl")).counts["kept"] == 3


def test_a_file_that_two_inputs_name_is_refused_with_both_names(crawl: Path) -> None:
    (crawl / "a.jsonl").write_bytes(lines(3))
    inputs = [
        {"use": "jsonl", "path": f"{crawl}/{p}", "name": n} for n, p in [("web", "*"), ("books", "a.*")]
    ]
    with pytest.raises(InputError, match="the inputs 'web' and 'books' name the same file"):
        cleaned(made(crawl, inputs=inputs))


def test_a_socket_is_told(crawl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (crawl / "a.jsonl").write_bytes(lines(3))
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(crawl)  # the path of a socket is short
        listening.bind("b.jsonl")
        finished = cleaned(made(crawl, **ANY))
    assert "a socket" in finished.inputs[1]["damage"][0]


# --- small files, late files, what is shown ---------------------------------------------------------------------------


def test_small_files_share_splits_and_shards_and_keep_their_ids(
    crawl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(60):
        (crawl / f"{n:02}.jsonl").write_bytes(lines(3, 3 * n))
    (crawl / "30.jsonl").unlink()
    (crawl / "30.jsonl").symlink_to("nowhere")
    apart = cleaned(made(crawl, **ANY))
    monkeypatch.setattr(splits, "MAX_FILES", 10_000)
    size = len(lines(3)) * 40 / 2**20
    recipe = parse_recipe(made(crawl, **ANY, split_mb=size).model_dump(mode="json") | {"version": "2"})
    together = cleaned(recipe)
    assert together.counts == apart.counts
    assert together.inputs == apart.inputs
    assert len(together.of_kind("kept")) in range(5, 13)
    assert len(apart.of_kind("kept")) == 59
    rows = [
        [row for t in documents.tables(documents.parts(str(crawl.parent / f"out/ledger/{v}/clean"), m), "kept")
         for row in t.to_pylist()]
        for v, m in ((1, apart), (2, together))
    ]  # fmt: skip
    assert rows[0] == rows[1]


def test_files_that_came_later_are_named_when_the_section_is_read_again(crawl: Path) -> None:
    (crawl / "a.jsonl").write_bytes(lines(3))
    recipe = made(crawl)
    cleaned(recipe)
    (crawl / "b.jsonl").write_bytes(lines(3))
    said = StringIO()
    pipeline.clean(recipe, run_here, SectionProgress(said))
    assert "files that came after ledger 1 was begun are not in it (1: in/b.jsonl)" in said.getvalue()
    shutil.rmtree(crawl)
    assert pipeline.clean(recipe, run_here).counts["kept"] == 3


def test_a_begun_section_goes_on_with_the_splits_that_it_began_with(
    crawl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(4):
        (crawl / f"{n}.jsonl").write_bytes(lines(3))
    recipe, worked = made(crawl), []

    def two_splits(recipe: Recipe, folder: str, left: Any) -> Any:
        worked.append(len(left))
        yield from run_here(recipe, folder, left[:2])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.clean(recipe, two_splits)
    monkeypatch.setattr(splits, "MAX_FILES", 10_000)  # a later version cuts otherwise
    assert pipeline.clean(recipe, run_here).counts["kept"] == 12
    assert worked == [4]


def test_the_report_shows_what_was_lost_of_which_file(crawl: Path, tmp_path: Path) -> None:
    (crawl / "a.jsonl").write_bytes(lines(30))
    (crawl / "b<b>.jsonl.gz").write_bytes(gzip.compress(lines(30))[:-20])
    recipe = made(crawl, **ANY)
    cleaned(recipe)
    write_corpus_report(recipe.folder("clean"), str(tmp_path / "report.html"))
    shown = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "in/b&lt;b&gt;.jsonl.gz" in shown
    assert "the compressed stream is truncated" in shown


def test_a_cut_file_that_grew_afterwards_is_unfinished_all_the_same(crawl: Path) -> None:
    account = {"input": "in", "name": "a.jsonl.gz", "bytes_read": 15, "bytes_lost": 0, "records": 3}
    account |= {"unfinished": True, "damage": ["the compressed stream is truncated"]}
    (crawl / "a.jsonl.gz").write_bytes(b"x" * 10)
    (split,) = splits.list_splits(made(crawl).data)
    done = Done(0, split.file.uri, split.file.version, {}, 0, [], 0.0, [account])
    (file,) = input_files.list_input_files([split], [done])
    assert (file["bytes"], file["bytes_lost"], file["unfinished"]) == (15, 0, True)
    assert file["damage"][1] == "its size changed by +5 bytes after it was listed"


def test_a_file_of_an_earlier_version_has_no_account_and_says_so() -> None:
    assert "kept no account" in describe({"input": "in", "name": "a.jsonl", "bytes": 12})
