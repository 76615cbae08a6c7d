"""Hostile input through the stages of zh_web: a record is kept, rejected by a rule, or counted as its kind of error.

Every file here is damaged in a way of its own beside sound records; the law `in == kept + rejects` holds to the
document, no id occurs twice, and a disk that fills up costs nothing but the time until it is mended.
"""

from __future__ import annotations

import bz2
import gzip
import json
import os
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard

from ctllm_ray.base import recipe, storage
from ctllm_ray.base.errors import ErrorShareExceeded, StorageError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.cli import run
from ctllm_ray.corpus import pipeline
from ctllm_ray.shards import manifest, reader
from tests.conftest import REPOSITORY
from tests.corpus.conftest import fill, page, run_here
from tests.corpus.test_section import digests

PROSE = "清晨的山路上还留着昨夜的雨水，孩子们背着书包慢慢地走，老人坐在门口看他们过去，说今年的稻子长得很好。"


def zh_web(folder: Path, *inputs: dict[str, str], **data: object) -> Recipe:
    """The stages of zh_web over inputs below a folder."""
    plain = yaml.safe_load((REPOSITORY / "jobs" / "recipes" / "zh_web.yaml").read_text(encoding="utf-8"))
    located = [given | {"path": f"{folder}/{given['path']}"} for given in inputs]
    plain["data"] = {
        "inputs": located,
        "max_error_share": 1.0,
        "max_unfinished_file_share": 1.0,
        "max_record_mb": 0.25,
    } | data
    return recipe.parse_recipe(
        plain | {"root": str(folder / "out"), "resources": {"workers": 2, "object_store_mb": 100}}
    )


def rows(made: Recipe) -> list[dict]:
    """Every document of a finished section; checks the laws that hold for all."""
    folder = made.folder("clean")
    finished = manifest.read_manifest(folder)
    found = [
        row | {"kind": kind}
        for kind in ("kept", "rejected")
        for _, table in reader.tables(folder, finished, kind)
        for row in table.to_pylist()
    ]
    reasons = Counter(row["reject"] for row in found)
    assert finished.counts["in"] == len(found)
    assert finished.counts["kept"] == reasons.pop(None, 0)
    assert finished.rejects() == dict(reasons)
    assert len({row["id"] for row in found}) == len(found)
    assert all((row["kind"] == "kept") == (row["reject"] is None) for row in found)
    return found


def errors(found: list[dict]) -> dict[str, list[str]]:
    """The ids of the records that could not be read, less their offsets, by kind of error."""
    kinds: dict[str, list[str]] = {}
    for row in found:
        if (row["reject"] or "").startswith("error."):
            assert "#" in row["id"]
            assert row["raw"] is None or len(row["raw"]) <= 4096
            kinds.setdefault(row["reject"].removeprefix("error."), []).append(row["id"].partition("#")[0])
    return kinds


def line(number: int) -> bytes:
    return json.dumps({"text": f"{PROSE}第 {number} 天。{page(number)}"}, ensure_ascii=False).encode() + b"\n"


def sound(count: int) -> bytes:
    return b"".join(line(number) for number in range(count))


def test_every_kind_of_broken_line_is_counted_and_its_neighbours_are_read(tmp_path: Path) -> None:
    broken = {
        "invalid_json": [
            b'{"text": "half',
            b"not json",
            b"{}}",
            b"\x00" * 10,
        ],
        "invalid_utf8": [b'{"text": "\xd6\xd0"}', b"\xff\xfe"],
        "missing_field": [b"{}", b'{"text": null}', b'{"body": "x"}'],
        "wrong_type": [
            b'{"text": 1}',
            b'{"text": NaN}',
            b'{"text": ["x"]}',
            b'{"text": {"a": 1}}',
            b"[]",
            b"null",
            b"3",
            b'"text"',
        ],
        "record_too_large": [b'{"text": "' + b"x" * (1 << 18) + b'"}'],
    }
    mixed = line(0)
    for number, bad in enumerate(bad for group in broken.values() for bad in group):
        mixed += bad + b"\n" + line(number + 1)
    (tmp_path / "mixed.jsonl").write_bytes(mixed)
    (tmp_path / "mixed.jsonl.gz").write_bytes(gzip.compress(mixed))
    (tmp_path / "mixed.jsonl.zst").write_bytes(zstandard.compress(mixed))
    (tmp_path / "mixed.jsonl.bz2").write_bytes(bz2.compress(mixed))
    made = zh_web(tmp_path, {"use": "jsonl", "path": "mixed.*", "name": "in"})
    pipeline.clean(made, run_here)
    found = rows(made)
    count = sum(map(len, broken.values()))
    assert len(found) == 4 * (2 * count + 1)
    assert {kind: len(ids) for kind, ids in errors(found).items()} == {
        k: 4 * len(v) for k, v in broken.items()
    }
    for row in found:
        if row["reject"] == "error.wrong_type":
            assert row["raw"] in broken["wrong_type"]
            offset = int(row["id"].partition("#")[2])
            assert mixed[offset : offset + len(row["raw"])] == row["raw"]


def test_nul_bytes_and_controls_in_a_text_lose_no_record(tmp_path: Path) -> None:
    texts = [
        "\u0000",
        "\u0000" + PROSE,
        PROSE + "\u0000\u0001\u0007" * 50,
        "\ufffe\uffff" + PROSE,
        "\u202e" + PROSE,
        "",
        " ",
    ]
    lines = [json.dumps({"text": text}) for text in texts]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "b.txt").write_bytes(b"\x00" * 1000)
    (tmp_path / "c.txt").write_bytes(PROSE.encode() + b"\x00" * 10 + PROSE.encode("gb18030"))
    (tmp_path / "d.txt").write_bytes(bytes(range(256)) * 20)
    made = zh_web(
        tmp_path,
        {"use": "jsonl", "path": "a.jsonl", "name": "a"},
        {"use": "text", "path": "*.txt", "name": "t"},
    )
    pipeline.clean(made, run_here)
    found = rows(made)
    assert len(found) == len(texts) + 3
    kept = [row["text"] for row in found if row["kind"] == "kept"]
    assert not any(ord(c) < 32 and c != "\n" for text in kept for c in text)


def test_damaged_files_keep_what_was_whole_and_add_one_error_each(tmp_path: Path) -> None:
    content = sound(400)
    files = {
        "cut.jsonl.gz": gzip.compress(content)[:-2000],
        "cut.jsonl.zst": zstandard.compress(content)[:-2000],
        "cut.jsonl.bz2": bz2.compress(content)[:-2000],
        "flipped.jsonl.gz": _flipped(gzip.compress(content)),
        "flipped.jsonl.zst": _flipped(zstandard.ZstdCompressor(write_checksum=True).compress(content)),
        "plain.jsonl.gz": content,
        "page.jsonl.zst": b"<html>not compressed</html>",
        "head.jsonl.gz": gzip.compress(content)[:5],
    }
    for name, packed in files.items():
        (tmp_path / name).write_bytes(packed)
    for name in ("empty.jsonl", "empty.jsonl.gz", "empty.jsonl.zst"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "blank.jsonl").write_bytes(b"\n \n\t\n\r\n")
    (tmp_path / "nothing.jsonl.gz").write_bytes(gzip.compress(b""))
    made = zh_web(tmp_path, {"use": "jsonl", "path": "*.jsonl*", "name": "in"})
    pipeline.clean(made, run_here)
    kinds = errors(rows(made))
    assert sorted(kinds.pop("truncated")) == sorted(f"in/{name}" for name in files)
    assert {name for names in kinds.values() for name in names} <= {
        "in/flipped.jsonl.gz"
    }  # lines before its checksum


def _flipped(packed: bytes) -> bytes:
    middle = len(packed) // 2
    return packed[:middle] + bytes([packed[middle] ^ 0xFF]) + packed[middle + 1 :]


def warc(*bodies: bytes, more: str = "") -> bytes:
    """A WARC file of HTTP responses; the url of each ends with its number."""
    out = b""
    for number, body in enumerate(bodies):
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n{more}\r\n".encode()
        fields = f"WARC-Type: response\r\nWARC-Target-URI: http://host.example/{number}\r\n"
        fields += "WARC-Date: 2024-01-01T00:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
        fields += f"WARC-Record-ID: <urn:uuid:{number:032x}>\r\nContent-Length: {len(head) + len(body)}\r\n"
        out += f"WARC/1.0\r\n{fields}\r\n".encode() + head + body + b"\r\n\r\n"
    return out


def html(body: str) -> bytes:
    return f"<!doctype html><html><head><title>山路</title></head><body>{body}</body></html>".encode()


def test_damaged_archives_and_hostile_pages_lose_no_page(tmp_path: Path) -> None:
    article = "".join(f"<p>{PROSE}第{number}段。</p>" for number in range(5))
    pages = {
        "sound": html(article),
        "nested": html("<div>" * 20_000 + article + "</div>" * 20_000),
        "unclosed": html("<div><span><b>" * 3000 + article),
        "attributes": html("<p " + " ".join(f"a{i}='{i}'" for i in range(5000)) + f">{PROSE}</p>"),
        "entities": html("&#x110000;&#0;&#xD800;&amp" * 100 + article),
        "comment": html("<!-- " + "-" * 10_000 + article),
        "script": html("<script>" + article),
        "nul": html(article.replace("。", "。\x00")),
        "halves": html(article)[:-201],
        "empty": b"",
        "binary": bytes(range(256)) * 100,
        "picture": b"\x89PNG\r\n\x1a\n" + b"\x00" * 1000,
        "utf16": html(article).decode().encode("utf-16"),
        "lies": html(article).decode().encode("gb18030"),
    }
    whole = warc(*pages.values())
    (tmp_path / "whole.warc").write_bytes(whole)
    (tmp_path / "whole.warc.gz").write_bytes(gzip.compress(whole))
    (tmp_path / "cut.warc").write_bytes(whole[:-300])
    (tmp_path / "cut.warc.gz").write_bytes(gzip.compress(whole)[:-300])
    (tmp_path / "rubbish.warc").write_bytes(b"rubbish " * 1000)
    (tmp_path / "empty.warc").write_bytes(b"")
    (tmp_path / "bomb.warc.gz").write_bytes(
        gzip.compress(warc(gzip.compress(b"\x00" * (64 << 20)), more="Content-Encoding: gzip\r\n"))
    )
    made = zh_web(tmp_path, {"use": "warc", "path": "*.warc*", "name": "in"}, max_record_mb=1)
    pipeline.clean(made, run_here)
    found = rows(made)
    kinds = errors(found)
    assert sorted(kinds["truncated"]) == ["in/cut.warc", "in/cut.warc.gz"]
    assert kinds["record_too_large"] == ["in/bomb.warc.gz"]
    assert kinds["invalid_warc"] == ["in/rubbish.warc"]
    by_file = Counter(row["id"].partition("#")[0] for row in found)
    assert by_file["in/whole.warc"] == by_file["in/whole.warc.gz"] == by_file["in/cut.warc"]
    assert by_file["in/whole.warc"] >= len(pages) - 1  # an empty response may be none
    read = {row["url"].rpartition("/")[2]: row for row in found if row["id"].startswith("in/whole.warc#")}
    for number, name in enumerate(pages):
        if name in {"sound", "nested", "unclosed", "entities", "nul", "halves", "utf16", "lies"}:
            assert "稻子" in (read[str(number)]["text"] or ""), name


def test_a_hundred_thousand_nested_elements_end_no_worker(tmp_path: Path) -> None:
    (tmp_path / "deep.html").write_bytes(html("<div>" * 100_000 + PROSE + "</div>" * 100_000))
    (tmp_path / "mixed.html").write_bytes(html("<b><div><i><table>" * 25_000 + PROSE))
    made = zh_web(tmp_path, {"use": "html", "path": "*.html", "name": "in"}, max_record_mb=4)
    pipeline.clean(made, run_here)
    assert len(rows(made)) == 2


def test_parquet_of_another_shape_is_counted(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [PROSE, None, PROSE]}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.parquet").write_bytes(b"")
    made = zh_web(tmp_path, {"use": "parquet", "path": "*.parquet", "name": "in"})
    pipeline.clean(made, run_here)
    found = rows(made)
    assert len(found) == 4
    assert {kind: len(ids) for kind, ids in errors(found).items()} == {"missing_field": 1, "truncated": 1}


def test_a_long_line_is_one_error_at_flat_memory(tmp_path: Path) -> None:
    with (tmp_path / "long.jsonl").open("wb") as stream:
        stream.write(line(1) + b'{"text": "')
        for _ in range(64):
            stream.write(b"x" * (1 << 20))
        stream.write(b'"}\n' + line(2))
    made = zh_web(tmp_path, {"use": "jsonl", "path": "long.jsonl", "name": "in"}, split_mb=16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipeline.clean(made, run_here)
    found = rows(made)
    assert len(found) == 3
    assert errors(found) == {"record_too_large": ["in/long.jsonl"]}
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 48


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_bomb_of_zeros_is_one_error(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "bomb.jsonl.gz").write_bytes(b"")
    name = "bomb.jsonl.gz" if pack is gzip.compress else "bomb.jsonl.zst"
    (tmp_path / name).write_bytes(pack(line(1) + b"\x00" * (256 << 20) + b"\n" + line(2)))
    made = zh_web(tmp_path, {"use": "jsonl", "path": "bomb.*", "name": "in"})
    pipeline.clean(made, run_here)
    found = rows(made)
    assert len(found) == 3
    assert errors(found) == {"record_too_large": [f"in/{name}"]}


@pytest.mark.slow
def test_a_line_of_500_megabytes_ends_no_run(tmp_path: Path) -> None:
    with (tmp_path / "long.jsonl").open("wb") as stream:
        stream.write(line(1) + b'{"text": "')
        for _ in range(500):
            stream.write(b"x" * (1 << 20))
        stream.write(b'"}\n' + line(2))
    made = zh_web(tmp_path, {"use": "jsonl", "path": "long.jsonl", "name": "in"}, max_record_mb=16)
    pipeline.clean(made, run_here)
    assert errors(rows(made)) == {"record_too_large": ["in/long.jsonl"]}


def test_more_errors_than_allowed_fail_the_section_and_say_which(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(sound(98) + b"{\n[]\n")
    made = zh_web(tmp_path, {"use": "jsonl", "path": "a.jsonl", "name": "in"}, max_error_share=0.01)
    with pytest.raises(ErrorShareExceeded, match=r"2.00% of 100 .*invalid_json 1.*wrong_type 1") as caught:
        pipeline.clean(made, run_here)
    assert caught.value.exit_code == 4
    assert not storage.exists(storage.join(made.folder("clean"), manifest.MANIFEST))
    enough = zh_web(tmp_path, {"use": "jsonl", "path": "a.jsonl", "name": "in"}, max_error_share=0.02)
    assert pipeline.clean(enough, lambda *_: []).counts["in"] == 100


@pytest.fixture
def incompressible(tmp_path: Path) -> Path:
    """Six files whose shards take half a megabyte each."""
    folder = tmp_path / "crawl"
    folder.mkdir()
    draw = np.random.default_rng(3)
    for part in range(6):
        texts = draw.integers(0x4E00, 0x9FA5, (150, 2000), np.int32).astype(np.uint32)
        lines = [json.dumps({"text": row.tobytes().decode("utf-32-le")}, ensure_ascii=False) for row in texts]
        (folder / f"{part}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def written(folder: Path, root: Path) -> str:
    """The path of a recipe over a folder that writes to a root."""
    plain = {
        "name": "full",
        "version": "1",
        "seed": 1,
        "root": str(root),
        "data": {"inputs": [{"use": "jsonl", "path": f"{folder}/*.jsonl"}], "max_error_share": 0.1},
        "stages": [{"use": "measure", "rules": [{"use": "document.char_count", "min": 60}]}],
        "resources": {"workers": 2, "object_store_mb": 100},
    }
    path = folder / f"{root.name}.yaml"
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("left_bytes", [0, 100_000, 1_200_000])
def test_a_full_disk_is_one_message_and_the_next_run_goes_on(
    small_disk: Path, incompressible: Path, tmp_path: Path, left_bytes: int
) -> None:
    calm = recipe.load_recipe(written(incompressible, tmp_path / "calm"))
    pipeline.clean(calm, run_here)
    made = recipe.load_recipe(written(incompressible, small_disk / "out"))
    filler = fill(small_disk, left_bytes)
    with pytest.raises(StorageError, match="cannot be written: No space left on device") as caught:
        pipeline.clean(made, run_here)
    assert "free space" in caught.value.remedy
    assert str(small_disk) in caught.value.where
    assert not any(storage.TEMPORARY in name for _, _, names in os.walk(small_disk) for name in names)
    filler.unlink()
    pipeline.clean(made, run_here)
    assert digests(made) == digests(calm)


@pytest.mark.cluster
def test_a_full_disk_under_ray_is_the_same_message_and_the_next_run_goes_on(
    small_disk: Path, incompressible: Path, tmp_path: Path, cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    calm = recipe.load_recipe(written(incompressible, tmp_path / "calm"))
    pipeline.clean(calm, run_here)
    path = written(incompressible, small_disk / "out")
    filler = fill(small_disk, 1_200_000)
    assert run(["prepare", path]) == 5
    error = capsys.readouterr().err
    assert "cannot be written: No space left on device\n" in error
    assert "free space" in error
    assert error.count("ctllm: ") == 1
    assert "Traceback" not in error
    filler.unlink()
    assert run(["prepare", path]) == 0
    assert digests(recipe.load_recipe(path)) == digests(calm)
