"""What the demo says before, between and after its steps. The steps themselves run in tests/test_readme.py."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from ctllm_ray import cli
from ctllm_ray.base.errors import InputError
from ctllm_ray.base.recipe import load_recipe
from ctllm_ray.serving import demo
from tests.conftest import REPOSITORY

TINY = str(REPOSITORY / "jobs/recipes/tiny.yaml")


def test_a_step_says_its_number_of_how_many_what_it_does_and_about_how_long_it_takes() -> None:
    lines: list[str] = []
    progress = demo.StepProgress(lines.append)
    for name in list(demo.STEPS)[:3]:
        progress.begin(name, "131,072 tokens of tiny")
    assert lines[-1] == f"[3/8] pretraining: 131,072 tokens of tiny (about {demo.STEPS['pretraining']} s)"
    progress.finish("out/tiny/1/export/64")
    assert lines[-1] == "      0 s: out/tiny/1/export/64"


def test_a_link_to_a_report_opens_whatever_its_folder_is_called(tmp_path: Path) -> None:
    report = tmp_path / "语料 1#2/report.html"
    report.parent.mkdir()
    report.write_text("<html>", encoding="utf-8")
    link = demo.link_to(str(report))
    assert link.startswith("file:///")
    with urllib.request.urlopen(link) as opened:
        assert opened.read() == b"<html>"


def test_a_report_on_a_store_keeps_its_address() -> None:
    assert demo.link_to("s3://bucket/run/report.html") == "s3://bucket/run/report.html"


def test_what_to_run_next_are_commands_that_exist_with_recipes_that_load() -> None:
    steps = demo.next_steps(TINY, load_recipe(TINY, ["root=out"]))
    verbs = {command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    assert len(steps) == 3
    for step in steps:
        program, verb, recipe, root, *_ = shlex.split(step.command)
        assert (program, root) == ("ctllm", "root=out")
        assert verb in verbs
        load_recipe(recipe, [root])


def test_of_another_crawl_no_page_of_the_sample_is_asked_for() -> None:
    other = load_recipe(TINY, ["root=out", 'data.inputs=[{use: jsonl, path: "crawl/*.jsonl", name: text}]'])
    assert [step.command.split()[1] for step in demo.next_steps(TINY, other)] == ["serve"]


def test_the_first_line_waits_for_neither_ray_nor_torch() -> None:
    code = "import sys, ctllm_ray.serving.demo; print([m for m in ('ray', 'torch', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_taken_port_is_told_before_any_work(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        recipe = load_recipe(TINY, [f"root={tmp_path}/out", f"serve.port={taken.getsockname()[1]}"])
        with pytest.raises(InputError, match="cannot be used"):
            demo.run_demo(TINY, recipe, lambda line: None, stay=False)
    assert not (tmp_path / "out").exists()
