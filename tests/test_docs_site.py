"""The site of docs/ builds without a broken link and needs no network; its tutorials run as they stand."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from mkdocs.exceptions import PluginError

from ctllm_ray import cli
from ctllm_ray.base import recipe
from docs.generate import tables
from tests import ray_cluster
from tests.conftest import REPOSITORY, SharedRay
from tests.test_readme import Server, blocks, commands, here, numbers, place, run

DOCS = REPOSITORY / "docs"
#: In the order in which one needs what another makes.
STEPS = ("tutorials/clean", "tutorials/pretrain", "quick-start", "tutorials/align", "tutorials/evaluate")
PAGES = (*STEPS, "tutorials/serve", "tutorials/cluster", "tutorials/index")
LOADED = re.compile(r'<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)="((?:https?:)?//[^"]*)"')
small_crawl = place  # the fixture: recipes, environment, a crawl, and the sample prepared with `tiny`


def test_the_site_builds_strictly_and_loads_nothing_from_the_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {file: file.read_text(encoding="utf-8") for file in tmp_path.rglob("*.html")}
    assert len(pages) > 60
    for file, page in pages.items():
        assert not LOADED.findall(page), file
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"url\(\W?(?:https?:)?//", style.read_text(encoding="utf-8")), style
    assert 'lang="zh"' in pages[tmp_path / "zh/quick-start.html"]
    assert '<html lang="en"' in pages[tmp_path / "quick-start.html"]


def test_the_recipe_page_misses_no_key_and_names_none_that_is_gone() -> None:
    page = (DOCS / "reference/recipe.md").read_text(encoding="utf-8")
    assert "| `train.tokens` | integer > 0 | required |" in tables.filled("reference/recipe.md", page)
    assert "| `serve.port`" not in page  # it shares a row with the host
    with pytest.raises(PluginError, match=r"no description of the keys: serve\.slots"):
        tables.filled("reference/recipe.md", page.replace("`serve.slots`", "`serve.cpus`"))
    with pytest.raises(PluginError, match=r"not in the code: serve\.slot$"):
        tables.filled("reference/recipe.md", page.replace("`serve.slots`", "`serve.slot`"))


def test_a_page_of_names_misses_no_name_and_no_option() -> None:
    page = (DOCS / "reference/passes.md").read_text(encoding="utf-8")
    tables.filled("reference/passes.md", page)
    with pytest.raises(PluginError, match="no section for: near"):
        tables.filled("reference/passes.md", page.replace("## near\n", "## close\n"))
    with pytest.raises(PluginError, match="no description of the options: prefer"):
        tables.filled("reference/passes.md", page.replace("| `prefer` |", "| prefer |", 1))


@pytest.mark.parametrize("name", PAGES)
def test_a_chinese_page_has_the_same_blocks(name: str) -> None:
    english, chinese = DOCS / f"{name}.md", DOCS / f"zh/{name}.md"
    assert blocks(chinese) == blocks(english)
    assert numbers(chinese) == numbers(english)


@pytest.mark.parametrize("name", PAGES)
def test_commands_name_verbs_that_exist_and_recipes_that_load(name: str) -> None:
    verbs = {c.callback.__name__ for c in cli.app.registered_commands if c.callback}
    verbs |= {str(group.name) for group in cli.app.registered_groups}
    for command in commands(DOCS / f"{name}.md"):
        if not command.startswith("ctllm "):
            continue
        words = shlex.split(command)
        assert words[1] in verbs, command
        for word in words[2:]:
            if word.startswith("jobs/recipes/"):
                overrides = [
                    w for i, w in enumerate(words) if re.match(r"[\w.]+=", w) and words[i - 1] != "--set"
                ]
                recipe.load_recipe(str(REPOSITORY / word), overrides)


class Follower(Server):
    """The README's server, which not every page starts."""

    def local(self, text: str) -> str:
        return text.replace("http://127.0.0.1:8000", self._url)

    def stop_if_started(self) -> None:
        if self._process is not None:
            self.stop()


def follow(name: str, folder: Path, ray_address: str) -> None:
    """Does what a page says, and finds what it shows; a file that it shows is written down first."""
    server, printed = Follower(folder, ray_address), ""
    for language, content in blocks(DOCS / f"{name}.md"):
        first = content.partition("\n")[0]
        if language == "yaml" and re.fullmatch(r"# \w+\.yaml", first):
            (folder / first.removeprefix("# ")).write_text(content, encoding="utf-8")
        elif language == "bash":
            printed = "\n".join(server.answer(here(command)) for command in content.splitlines())
        elif language == "python":
            run([sys.executable, "-c", server.local(content)], folder)
        elif language == "text":
            for line in content.splitlines():
                assert line.strip("… ") in printed, f"{name} shows what is not printed: {line!r}\n{printed}"
    server.stop_if_started()


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(3600)  # some thirty commands, half of which start Ray
def test_the_tutorials_run_and_print_what_they_show(
    small_crawl: Path, cluster: None, shared_ray: SharedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_crawl)
    for name in (*STEPS, "tutorials/serve"):
        follow(name, small_crawl, shared_ray.address)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_the_cluster_tutorial_runs_on_a_cluster_of_one_node(tmp_path: Path) -> None:
    """The cluster is the test's own: `ray start` and `ray stop` of the page would meet others on this machine."""
    few = "train.tokens=8192 train.schedule.warmup_tokens=2048 train.schedule.decay_tokens=2048"
    with ray_cluster.started() as cluster:
        for command in commands(DOCS / "tutorials/cluster.md"):
            command = command.replace("$PWD", str(tmp_path)).replace("http://127.0.0.1:8265", cluster.address)
            done = cluster.run(*shlex.split(command), *_few(command, few))
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "<html" in (tmp_path / "out-cluster/tiny/1/clean/report.html").read_text(encoding="utf-8")
    assert list((tmp_path / "out-cluster/tiny/1/train/checkpoints").iterdir())


def _few(command: str, overrides: str) -> list[str]:
    return overrides.split() if command.startswith("ctllm submit train ") else []
