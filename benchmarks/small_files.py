"""Many small files: reading them against one large file of the same pages, and listing and planning them.

    PYTHONPATH=. python benchmarks/small_files.py
    PYTHONPATH=. python benchmarks/small_files.py --files 20000 --listed 100000 --objects 20000

Pages are HTML of 5 kB. `read` cleans them (extract, normalize) in one process: as files of one page each, and as one
jsonl file; the bar is 1.5 times the seconds. `plan` lists the files, makes the splits and their plain form, as the
driver does before it writes PLAN.json: on the local disk, and in a bucket of a server on this machine (moto), whose
own time is most of it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.base.recipe import Recipe, parse_recipe
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus.engine import section, splits

HAN = "春天到了花开得很好我们去山里走了一天水也清风也轻他说明年再来孩子们笑着跑过桥老人坐在树下说起从前的事"


def page(number: int) -> str:
    """A page of about 5 kB, with a menu around its text."""
    draw = random.Random(number)
    paragraphs = ["".join(draw.choices(HAN, k=draw.randrange(60, 160))) + "。" for _ in range(13)]
    menu = "".join(f"<li><a href='/{i}'>栏目{i}</a></li>" for i in range(12))
    body = "".join(f"<p>{text}</p>" for text in paragraphs)
    head = f"<meta charset=utf-8><title>第{number}页</title>"
    return f"<html><head>{head}</head><body><ul>{menu}</ul>{body}</body></html>"


def recipe(root: Path, use: str, path: str) -> Recipe:
    """A recipe that extracts and normalizes."""
    source: dict[str, Any] = {"use": use, "path": path, "name": "in"} | (
        {"html": "html"} if use == "jsonl" else {}
    )
    plain = {"name": use, "version": "1", "seed": 1, "root": str(root), "resources": {"workers": 1}}
    stages = [{"use": "extract"}, {"use": "normalize"}]
    return parse_recipe(plain | {"data": {"inputs": [source], "max_error_share": 0}, "stages": stages})


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds that a call takes, and its result."""
    started = time.monotonic()
    result = work()
    return time.monotonic() - started, result


def clean(wanted: Recipe) -> tuple[float, int, int]:
    """Seconds of the splits, documents kept, and files written."""
    took = 0.0

    def run(wanted: Recipe, folder: str, left: Any) -> Any:
        nonlocal took
        for split in left:
            wall, done = seconds(lambda split=split: section.run_split(wanted, folder, split))
            took += wall
            yield done

    finished = pipeline.clean(wanted, run)
    return took, finished.counts["kept"], len(storage.list_tree(wanted.folder("clean")))


def compare_reading(folder: Path, count: int) -> None:
    """Prints the seconds of many files and of one."""
    (folder / "pages").mkdir()
    with (folder / "one.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(count):
            html = page(number)
            (folder / "pages" / f"{number:06d}.html").write_text(html, encoding="utf-8")
            stream.write(json.dumps({"html": html}, ensure_ascii=False) + "\n")
    clean(recipe(folder / "warm", "jsonl", f"{folder}/one.jsonl"))
    one, kept, written = clean(recipe(folder / "out", "jsonl", f"{folder}/one.jsonl"))
    print(f"one jsonl: {one:.1f} s, {kept:,} pages kept, {written} files written")
    many, kept, written = clean(recipe(folder / "out", "html", f"{folder}/pages/*.html"))
    print(
        f"{count:,} html files: {many:.1f} s, {kept:,} pages kept, {written} files written; {many / one:.2f} times"
    )


def plan(name: str, pattern: str) -> None:
    """Prints the seconds and the memory of listing and planning."""
    wanted = recipe(Path("none"), "html", pattern)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    listed, files = seconds(lambda: storage.list_files(pattern))
    took, planned = seconds(lambda: splits.list_splits(wanted.data))
    plain = json.dumps([split.plain() for split in planned])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"plan, {name}: {len(files):,} files, listed in {listed:.1f} s, listed and planned in {took:.1f} s, "
        f"{len(planned)} splits, plan of {len(plain) / 1e6:.1f} MB, driver grew by {grown:.0f} MB"
    )


def plan_on_s3(count: int) -> None:
    """The same in a bucket of a server on this machine."""
    import s3fs
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }
    store = s3fs.S3FileSystem()
    store.mkdir("pages")
    store.pipe({f"pages/{number:06d}.html": b"<p>" for number in range(count)})
    plan("S3 (moto)", "s3://pages/*.html")
    server.stop()


def main() -> None:
    """Prints both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--listed", type=int, default=100_000)
    parser.add_argument("--objects", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compare_reading(folder, options.files)
        (folder / "many").mkdir()
        for number in range(options.listed):
            (folder / "many" / f"{number:06d}.html").write_bytes(b"<p>")
        plan("local disk", f"{folder}/many/*.html")
        plan_on_s3(options.objects)


if __name__ == "__main__":
    main()
