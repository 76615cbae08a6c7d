"""Peak memory of any process of a run, for one compressed file and for one ten times as large.

    python benchmarks/memory.py '../shared/data/web_zh_raw/part-*.jsonl.zst' --text raw_content --megabytes 200 2000

Writes one jsonl.zst per size (the input files over and over), runs `ctllm prepare` on it with two workers and
watches the resident memory (less what is shared with the object store) of every process that the run starts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import zstandard

from ctllm_ray.base import storage


def one_file(pattern: str, megabytes: int, to: Path) -> None:
    """A single zstd stream of that many MB of jsonl, whole lines."""
    written = 0
    with to.open("wb") as target, zstandard.ZstdCompressor(level=1).stream_writer(target) as stream:
        while written < megabytes * 1_000_000:
            for file in storage.list_files(pattern):
                with storage.open_input(file.uri) as source:
                    content = zstandard.ZstdDecompressor().stream_reader(source).read()
                stream.write(content)
                written += len(content)
                if written >= megabytes * 1_000_000:
                    break


def peaks(command: list[str]) -> dict[str, int]:
    """The largest private resident bytes of each kind of process while a command runs."""
    found: dict[str, int] = {}
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    family = psutil.Process(started.pid)
    while started.poll() is None:
        for process in [family, *_children(family)]:
            try:
                memory, name = process.memory_info(), " ".join(process.cmdline())
            except psutil.Error:
                continue
            kind = (
                "worker"
                if "ray::MapBatches" in name
                else "driver"
                if process.pid == started.pid
                else "Ray itself"
            )
            found[kind] = max(found.get(kind, 0), memory.rss - memory.shared)
        time.sleep(0.2)
    if started.returncode:
        raise SystemExit(f"the run ended with {started.returncode}")
    return found


def _children(family: psutil.Process) -> list[psutil.Process]:
    try:
        return family.children(recursive=True)
    except psutil.Error:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern")
    parser.add_argument("--recipe", default="jobs/recipes/zh_web.yaml")
    parser.add_argument("--text", default="text")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[200, 2000])
    options = parser.parse_args()
    highest = []
    for megabytes in options.megabytes:
        with tempfile.TemporaryDirectory(prefix="memory-") as folder:
            path = Path(folder) / "crawl.jsonl.zst"
            one_file(options.pattern, megabytes, path)
            inputs = [{"use": "jsonl", "path": str(path), "text": options.text, "html": "html"}]
            settings = [f"root={folder}/out", "resources.workers=2", f"data.inputs={json.dumps(inputs)}"]
            started = time.perf_counter()
            found = peaks([sys.executable, "-m", "ctllm_ray", "prepare", options.recipe, *settings])
            wall = time.perf_counter() - started
        highest.append(max(found.values()))
        parts = ", ".join(f"{kind} {size / 1e6:.0f} MB" for kind, size in sorted(found.items()))
        print(
            f"{megabytes:6d} MB in one jsonl.zst: {parts}; {wall:.0f} s, start and stop of Ray included",
            flush=True,
        )
    if len(highest) > 1:
        print(
            f"peak of any process, {options.megabytes[-1]} / {options.megabytes[0]} MB: "
            f"{highest[-1] / highest[0]:.2f}"
        )


if __name__ == "__main__":
    main()
