"""Small files of every source and packing, made from a seed, and ways to damage them; for benchmarks/fuzz_sources.py.

A file knows where the stored bytes of each of its records lie, so that one can tell which records damage touches:
a record's own bytes where nothing is packed, else those of the member of the compression (or the row group) that
holds it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

Range = tuple[int, int]  # first stored byte, and the one behind the last
WORDS = (
    "天地玄黄",
    "宇宙洪荒",
    "日月盈昃",
    "a plain word",
    "x = 1;",
    '\\n "quoted"',
    "<b>粗体</b>",
    "😀",
    "。",
)
WARC_TYPES = ("response", "response", "response", "resource", "request", "metadata")


class Stored(NamedTuple):
    """The bytes of a file, and where each of its records lies, by the record's mark (`R000012`). `index` are bytes
    that every record needs."""

    content: bytes
    records: dict[str, Range]
    index: Range = (0, 0)


class Kind(NamedTuple):
    """Files of a source in one packing: the end of their name, the source's options, and what makes one."""

    use: str
    name: str
    options: dict[str, str]
    make: Callable[[Random], Stored]


def mark(number: int) -> str:
    """What stands in a record's text once, so that it is known again."""
    return f"R{number:06}"


def words(random: Random, number: int) -> str:
    """A text of up to a few kilobytes with its mark in front."""
    count = random.choice((1, 5, 20, 100))
    return f"{mark(number)} " + "".join(random.choice(WORDS) for _ in range(random.randint(1, count)))


def texts(random: Random) -> list[str]:
    """The texts of a file's records."""
    first = random.randrange(100_000)
    return [words(random, first + i) for i in range(random.choice((1, 3, 10, 40)))]


def pack(random: Random, parts: Sequence[bytes], marks: Sequence[str], compress: Compress | None) -> Stored:
    """A file of the parts, each with one record; compressed with a few of them to a member, some of them cut."""
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + len(part))
    if compress is None:
        ranges = dict(zip(marks, pairwise(starts), strict=True))
        return Stored(b"".join(parts), ranges)
    plain, per_member = b"".join(parts), random.choice((1, 4, 1000))
    cuts = [*starts[:-1:per_member], len(plain)]
    if random.random() < 0.2:  # as parallel compressors do
        cuts = sorted({0, len(plain), *(random.randrange(len(plain)) for _ in range(3))})
    members, stored = list[tuple[int, int, int, int]](), b""
    for start, stop in pairwise(cuts):
        packed = compress(plain[start:stop])
        members.append((start, stop, len(stored), len(stored) + len(packed)))
        stored += packed
    ranges = {}
    for name, (start, stop) in zip(marks, pairwise(starts), strict=True):
        holders = [member for member in members if member[0] < stop and member[1] > start]
        ranges[name] = (holders[0][2], holders[-1][3])
    return Stored(stored, ranges)


Compress = Callable[[bytes], bytes]
COMPRESS: dict[str, Compress | None] = {
    "": None,
    ".gz": lambda data: gzip.compress(data, 6, mtime=0),
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def json_lines(
    fields: Callable[[Random, str], dict[str, Any]], compress: Compress | None
) -> Callable[[Random], Stored]:
    """Files of JSON lines."""

    def make(random: Random) -> Stored:
        every = texts(random)
        ends = random.choice(("\n", "\n", "\r\n"))
        parts = [
            json.dumps(fields(random, text), ensure_ascii=random.random() < 0.2) + ends for text in every
        ]
        return pack(random, [part.encode() for part in parts], [text[:7] for text in every], compress)

    return make


def json_array(
    fields: Callable[[Random, str], dict[str, Any]], compress: Compress | None
) -> Callable[[Random], Stored]:
    """Files of one JSON array, with or without line ends."""

    def make(random: Random) -> Stored:
        every, indent = texts(random), random.choice((None, 2))
        parts = [json.dumps(fields(random, text), ensure_ascii=False, indent=indent) for text in every]
        joint = random.choice((",", ", ", ",\n"))
        parts = [part + joint for part in parts[:-1]] + [parts[-1] + "]"]
        parts[0] = "[" + parts[0]
        return pack(random, [part.encode() for part in parts], [text[:7] for text in every], compress)

    return make


def page_fields(random: Random, text: str) -> dict[str, Any]:
    """A page."""
    meta = {"url": f"https://a.example/{text[:7]}", "title": "题", "meta": [{"a": 1}, {"b": [1.5, None]}]}
    return {"text": text} | (meta if random.random() < 0.5 else {})


def messages_fields(random: Random, text: str) -> dict[str, Any]:
    """A conversation in OpenAI's format."""
    answers = [text, *(words(random, 0)[7:] for _ in range(random.randrange(3)))]
    turns = [
        turn
        for answer in answers
        for turn in ({"role": "user", "content": "问"}, {"role": "assistant", "content": answer})
    ]
    return {"messages": turns}


def sharegpt_fields(random: Random, text: str) -> dict[str, Any]:
    """The same in ShareGPT's format."""
    names = {"user": "human", "assistant": "gpt"}
    turns = messages_fields(random, text)["messages"]
    return {"conversations": [{"from": names[turn["role"]], "value": turn["content"]} for turn in turns]}


def alpaca_fields(random: Random, text: str) -> dict[str, Any]:
    """An instruction."""
    return {"instruction": "写一句话", "input": "", "output": text, "history": [["你好", "好"]]}


def preference_fields(random: Random, text: str) -> dict[str, Any]:
    """A pair."""
    return {"prompt": "写一句话", "chosen": text, "rejected": "不"}


def lines(compress: Compress | None, joint: str) -> Callable[[Random], Stored]:
    """Text files of lines or of paragraphs."""

    def make(random: Random) -> Stored:
        every = texts(random)
        parts = [(text + joint).encode(random.choice(("utf-8", "utf-8", "gb18030"))) for text in every]
        return pack(random, parts, [text[:7] for text in every], compress)

    return make


def whole(compress: Compress | None, before: str) -> Callable[[Random], Stored]:
    """Files that are one record."""

    def make(random: Random) -> Stored:
        content = (before + "".join(texts(random))).encode()
        return pack(random, [content], [content.decode()[len(before) :][:7]], compress)

    return make


def parquet(random: Random) -> Stored:
    """Parquet files of several row groups."""
    every, sink = texts(random), io.BytesIO()
    text = pa.array(every, random.choice((pa.string(), pa.large_string(), pa.binary())))
    table = pa.table({"text": text, "url": pa.array([f"http://a.example/{i}" for i in range(len(every))])})
    pq.write_table(
        table,
        sink,
        row_group_size=random.choice((1, 5, 100)),
        compression=random.choice(("none", "snappy", "zstd")),
        use_dictionary=random.random() < 0.5,
        write_page_checksum=random.random() < 0.5,
    )
    content, ranges = sink.getvalue(), dict[str, Range]()
    about = pq.read_metadata(io.BytesIO(content))
    row = 0
    for group in range(about.num_row_groups):
        chunks = [about.row_group(group).column(i) for i in range(about.num_columns)]
        start = min(chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chunks)
        stop = start + sum(chunk.total_compressed_size for chunk in chunks)
        for text in every[row : row + about.row_group(group).num_rows]:
            ranges[text[:7]] = (start, stop)
        row += about.row_group(group).num_rows
    return Stored(content, ranges, (stop, len(content)))


def archive(
    record: Callable[[Random, str], Iterator[bytes]], compress: Compress | None
) -> Callable[[Random], Stored]:
    """WARC, WET and ARC files. Each record is a member of its own where it is compressed."""

    def make(random: Random) -> Stored:
        stored, ranges = b"", dict[str, Range]()
        for text in texts(random):
            for part in record(random, text):
                packed = compress(part) if compress else part
                ranges[text[:7]] = (len(stored), len(stored) + len(packed))
                stored += packed
        return Stored(stored, ranges)

    return make


def http(random: Random, text: str) -> bytes:
    """An HTTP response with a page, some of them gzipped or chunked."""
    body, more = f"<p>{text}</p>".encode(), b""
    if random.random() < 0.3:
        body, more = gzip.compress(body, mtime=0), b"Content-Encoding: gzip\r\n"
    if random.random() < 0.3:
        body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        more += b"Transfer-Encoding: chunked\r\n"
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + more + b"\r\n" + body


def warc_record(kind: str, url: str, block: bytes) -> bytes:
    """A WARC record."""
    types = {"response": "application/http; msgtype=response", "resource": "text/html"}
    header = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-01-02T03:04:05Z\r\n"
        f"Content-Type: {types.get(kind, 'text/plain')}\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return header.encode() + block + b"\r\n\r\n"


def warc_page(random: Random, text: str) -> Iterator[bytes]:
    """Other records that may stand before a page, then the page."""
    url, kind = f"https://a.example/{text[:7]}", random.choice(WARC_TYPES)
    if kind in ("request", "metadata"):
        yield warc_record(kind, url, b"GET / HTTP/1.1\r\n\r\n")
        kind = "response"
    yield warc_record(kind, url, http(random, text) if kind == "response" else text.encode())


def wet_page(random: Random, text: str) -> Iterator[bytes]:
    """A text of a WET file."""
    yield warc_record("conversion", f"https://a.example/{text[:7]}", text.encode())


def arc_page(random: Random, text: str) -> Iterator[bytes]:
    """A page of an ARC file."""
    block = http(random, text)
    header = f"http://a.example/{text[:7]} 1.2.3.4 20080102030405 text/html {len(block)}\n"
    yield header.encode() + block + b"\n"


def arc(compress: Compress | None) -> Callable[[Random], Stored]:
    """ARC files, with the record that describes them."""

    def make(random: Random) -> Stored:
        head = b"1 0 Test\nURL IP-address Archive-date Content-type Archive-length\n"
        first = f"filedesc://a.arc 0.0.0.0 20080102030405 text/plain {len(head)}\n".encode() + head + b"\n"
        first = compress(first) if compress else first
        rest = archive(arc_page, compress)(random)
        moved = {
            name: (start + len(first), stop + len(first)) for name, (start, stop) in rest.records.items()
        }
        return Stored(first + rest.content, moved)

    return make


def list_kinds() -> list[Kind]:
    """Every source in every packing that it has."""
    kinds = [Kind("parquet", "a.parquet", {}, parquet)]
    conversations = {
        "messages": messages_fields,
        "sharegpt": sharegpt_fields,
        "alpaca": alpaca_fields,
        "preference": preference_fields,
    }
    for end, compress in COMPRESS.items():
        kinds.append(Kind("jsonl", f"a.jsonl{end}", {}, json_lines(page_fields, compress)))
        kinds.append(Kind("text", f"a.txt{end}", {"separator": "line"}, lines(compress, "\n")))
    for end in ("", ".gz", ".zst"):
        compress = COMPRESS[end]
        kinds += [
            Kind("jsonl", f"a.json{end}", {}, json_array(page_fields, compress)),
            Kind("text", f"a.txt{end}", {"separator": "blank_line"}, lines(compress, "\n\n")),
            Kind("text", f"a.txt{end}", {"separator": "file"}, whole(compress, "")),
            Kind("html", f"a.html{end}", {}, whole(compress, "<html>")),
            Kind("warc", f"a.warc{end}", {}, archive(warc_page, compress)),
            Kind("wet", f"a.warc.wet{end}", {}, archive(wet_page, compress)),
        ]
    for end in ("", ".gz"):
        kinds.append(Kind("warc", f"a.arc{end}", {}, arc(COMPRESS[end])))
        for use, fields in conversations.items():
            kinds.append(Kind(use, f"a.jsonl{end}", {}, json_lines(fields, COMPRESS[end])))
            kinds.append(Kind(use, f"a.json{end}", {}, json_array(fields, COMPRESS[end])))
    return kinds


class Damaged(NamedTuple):
    """What became of a file: what was done, its bytes, and which bytes of the sound file were touched."""

    how: str
    content: bytes
    touched: list[Range]


def damage(random: Random, content: bytes, other: bytes, foreign: bytes) -> Damaged:
    """The file with one kind of damage. `other` is a file of the same kind, `foreign` one of another."""
    size = len(content)
    start = random.randrange(size)
    stop = min(size, start + random.choice((1, 10, 100, 1000)))
    how = random.choice(
        ("flip", "flip", "cut_end", "cut_out", "splice", "zero", "duplicate", "swap_header", "junk", "number")
    )
    if how == "flip":
        at = sorted({start, *(random.randrange(size) for _ in range(random.randrange(3)))})
        flipped = bytearray(content)
        for i in at:
            flipped[i] ^= 1 << random.randrange(8)
        return Damaged(how, bytes(flipped), [(i, i + 1) for i in at])
    if how in ("cut_end", "splice"):
        tail = other[random.randrange(len(other)) :] if how == "splice" else b""
        return Damaged(how, content[:start] + tail, [(start, size)])
    if how == "swap_header":
        count = random.choice((4, 16, 100))
        return Damaged(how, foreign[:count] + content[count:], [(0, min(count, size))])
    put = {
        "cut_out": b"",
        "zero": bytes(stop - start),
        "duplicate": content[start:stop] * 2,
        "junk": random.randbytes(random.choice((1, 20, 3000))),
        "number": random.choice(
            (b"9" * 5000, b"[" * 3000, b'"', b"\n", b"\0", b"\xff", b"{}", b"WARC/1.0\r\n")
        ),
    }
    stop = start if how in ("junk", "number") else stop
    return Damaged(how, content[:start] + put[how] + content[stop:], [(start, stop)])


def untouched(stored: Stored, touched: Sequence[Range]) -> set[str]:
    """The records none of whose bytes were touched, and into which nothing was put."""

    def is_sound(first: int, last: int) -> bool:
        return all(stop <= first or start >= last for start, stop in touched)

    return {name for name, own in stored.records.items() if is_sound(*own) and is_sound(*stored.index)}
