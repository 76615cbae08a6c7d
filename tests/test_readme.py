"""Every command of the README works from a folder like the repository's root, and prints what the README says."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from ctllm_ray import cli, sample
from ctllm_ray.base import recipe
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline
from ctllm_ray.serving import demo
from ctllm_ray.train import objective, session
from ctllm_ray.train.checkpoint.run_state import RunState
from ctllm_ray.train.data import reference_log_probs
from ctllm_ray.train.ray import launch
from ctllm_ray.train.steppers.torch import TorchStepper
from tests.conftest import REPOSITORY, SharedRay
from tests.corpus.conftest import run_here

README, CHINESE = (REPOSITORY / name for name in ("README.md", "README.zh-CN.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = 60  # of the sample, in the small crawl
FEW_TOKENS = 8192  # of the runs that the README continues from: a few steps


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, content) of each fenced block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(page: Path) -> list[str]:
    return [line for language, content in blocks(page) if language == "bash" for line in content.splitlines()]


@pytest.fixture(scope="session")  # not of the module: its tests are not handed out one after the other
def place(shared_ray: SharedRay) -> Path:
    """A folder with all that the commands name: recipes, environment, a crawl, and what `make demo` leaves in out/."""
    folder = shared_ray.folder
    for name in ("jobs", "serve", "Makefile", "pyproject.toml", "constraints.txt"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / ".venv").symlink_to(sys.prefix)
    packed = Path(sample.path("pages.jsonl.zst")).read_bytes()
    pages = [
        json.loads(line) for line in zstandard.ZstdDecompressor().decompress(packed).splitlines()[:PAGES]
    ]
    lines = [
        json.dumps({"url": page["url"], "raw_content": page["text"]}, ensure_ascii=False) for page in pages
    ]
    (folder / "crawl").mkdir()
    (folder / "crawl/part-0.jsonl.zst").write_bytes(
        zstandard.ZstdCompressor().compress("\n".join(lines).encode())
    )
    demo = recipe.load_recipe(str(REPOSITORY / "jobs/recipes/tiny.yaml"), [f"root={folder}/out"])
    pipeline.prepare(demo, run_here)
    return folder


def run(command: list[str], folder: Path, **more: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | more
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shell(command: str, folder: Path, **more: str) -> str:
    return run(["bash", "-c", command], folder, **more)


def verb(arguments: list[str]) -> str:
    """What a verb prints that is run in this process, whose Ray it finds."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert cli.run(arguments) == 0, arguments
    return printed.getvalue()


def python(content: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(content, {})
    return printed.getvalue()


def here(command: str) -> str:
    """The command as a test runs it: make says what it would do, a submitted job runs here, small and without a bucket.

    The job that trains finds the run finished that `ctllm train` made.
    """
    if command.startswith("make "):
        return command.replace("make ", "make -n ", 1)
    if command.startswith("ctllm submit "):
        command = command.replace("ctllm submit ", "python -m jobs.", 1).replace(
            "--address http://HEAD:8265 ", ""
        )
        command = command.replace("s3://bucket/run", "out").replace("s3://bucket/", "")
        return command.replace("ct_llm_2b.yaml", "tiny.yaml").replace("workers=[32, 64]", "workers=1")
    if command.startswith("ctllm train jobs/recipes/tiny_") or "train.run=chosen" in command:
        schedule = "train.schedule.warmup_tokens=2048 train.schedule.decay_tokens=2048"
        return f"{command} train.tokens={FEW_TOKENS} {schedule}"  # a few steps do
    return command


class Server:
    """Runs commands; `ctllm serve` goes on behind them, at a free port, until `stop`.

    Verbs run in this process; jobs and `ctllm serve` run on its Ray, as on a cluster's.
    """

    def __init__(self, place: Path, ray_address: str) -> None:
        self._place, self._ray_address, self._url = place, ray_address, ""
        self._process: subprocess.Popen[str] | None = None

    def answer(self, command: str) -> str:
        if command.startswith("ctllm serve "):
            return self._start(command)
        if command.startswith("ctllm "):
            return verb(shlex.split(command)[1:])
        command = command.replace("http://127.0.0.1:8000", self._url)
        return shell(command, self._place, RAY_ADDRESS=self._ray_address)

    def _start(self, command: str) -> str:
        """Its first line."""
        arguments = [str(Path(sys.executable).with_name("ctllm")), *command.split()[1:], "serve.port=0"]
        environment = os.environ | {"RAY_ADDRESS": self._ray_address}
        self._process = subprocess.Popen(
            arguments, cwd=self._place, env=environment, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("http://"), line
        self._url = line.partition(" ")[0]
        return line

    def stop(self) -> None:
        """Ctrl-C, which is how it ends well."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        rest, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0
        assert "stopped: " in rest


def train(on_ray: Callable[..., RunState]) -> Callable[..., RunState]:
    """Training on Ray, but for runs of a few steps: these train here, since each worker of Ray Train imports torch
    anew. `make demo`, which a slow test runs, trains them all on Ray."""

    def run_training(recipe: Recipe, tell: Callable[[str], None]) -> RunState:
        if recipe.training()[1].tokens > FEW_TOKENS:
            return on_ray(recipe, tell)
        if objective.find_objective(recipe.training()[1]).needs_reference:
            reference_log_probs.complete(recipe, reference_log_probs.here)
        return session.train(recipe, TorchStepper)

    return run_training


@pytest.mark.cluster
@pytest.mark.timeout(1800)  # some thirty commands
def test_every_command_works_and_prints_what_the_readme_shows(
    place: Path, cluster: None, shared_ray: SharedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's model is trained once; the job that prepares finds the section finished that `ctllm prepare` made."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(launch, "run_training", train(launch.run_training))
    printed, server = "", Server(place, shared_ray.address)
    for language, content in blocks(README):
        if language == "bash":
            printed = "\n".join(server.answer(here(command)) for command in content.splitlines())
        elif language == "python":
            assert "春天" in python(content)
        elif language == "text":
            for line in content.splitlines():
                assert line.strip("… ") in printed, (
                    f"the README shows what is not printed: {line!r}\n{printed}"
                )
    server.stop()
    for section in ("clean", "train"):
        assert "<html" in (place / "out/tiny/1" / section / "report.html").read_text(encoding="utf-8")


def test_shards_open_as_the_docs_say(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean, tokens = [
        text for language, text in blocks(REPOSITORY / "docs/how-to/read-shards.md") if language == "python"
    ]
    monkeypatch.chdir(place)
    found: dict[str, Any] = {}
    exec(clean, found)
    assert 0 < found["poems"].num_rows < 50
    assert found["poems"].column_names == ["id", "text", "entropy"]
    exec(tokens, found)
    assert found["shard"].doc_id(0).startswith("web/pages.warc.gz#")
    assert found["shard"].ids(0)[0] == found["tokenizer"].bos_id


def test_the_chinese_readme_has_the_same_blocks() -> None:
    assert [b for b in blocks(CHINESE) if b[0]] == [b for b in blocks(README) if b[0]]
    assert numbers(CHINESE) == numbers(README)


def test_the_chinese_readme_has_the_same_pictures_and_every_picture_is_there() -> None:
    english, chinese = pictures(README), pictures(CHINESE)
    assert [name.replace(".zh.", ".") for name in chinese] == english
    assert len(english) == 4
    for name in {*english, *chinese}:
        file = REPOSITORY / name
        assert 0 < file.stat().st_size < 150_000, name


def pictures(page: Path) -> list[str]:
    return re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))


def test_the_comparison_has_only_numbers_of_the_results_page() -> None:
    results = (REPOSITORY / "docs/results.md").read_text(encoding="utf-8").replace("%", " %")
    text = README.read_text(encoding="utf-8")
    table = text.partition("\n## What it does, and how it compares\n")[2].partition("\n## ")[0]
    figures = re.findall(r"\d+\.\d+|\b(?:77|358|384)\b", table)
    assert len(figures) > 15
    for figure in figures:
        assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.]*\d)", results), figure


def numbers(page: Path) -> list[str]:
    """The figures in tables: they are the same in any language."""
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [number for row in rows for number in re.findall(r"(?<![\w.])\d[\d,.]*\d|(?<![\w.])\d\b", row)]


@pytest.mark.slow
@pytest.mark.cluster
def test_make_demo_goes_from_pages_to_an_answer_of_the_served_model(tmp_path: Path) -> None:
    """In a copy of the tracked files, with this environment in place of a fresh one."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, tracked.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    printed = shell("make -o .venv/.installed demo", tmp_path)
    for number, name in enumerate(demo.STEPS, 1):
        assert f"\n[{number}/8] {name}: " in printed
    assert "215 of 328 pages kept" in printed
    assert "export/64" in printed
    assert f"\n问：{demo.QUESTION}\n答：" in printed
    assert "exam" in printed
    for name in ("clean", "train", "sweep", "evaluate"):
        report = tmp_path / "out/tiny/1" / name / "report.html"
        assert report.is_file()
        assert f" {report.as_uri()}\n" in printed
    for name in ("tiny", "tiny-sft", "tiny-dpo"):
        assert list((tmp_path / "out" / name / "1/export").glob("*/lineage.json"))
