"""The page about a sweep: what is on it, in both languages, that it asks for nothing, and that text stays
text."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ctllm_ray.mixture import choose, plan
from ctllm_ray.mixture.plan import SweepPlan
from ctllm_ray.mixture.report import render
from ctllm_ray.mixture.report.words import WORDS
from ctllm_ray.mixture.results import Trial
from tests.mixture import small_sweeps as small

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'


@pytest.fixture
def swept(tmp_path: Path) -> tuple[SweepPlan, list[Trial]]:
    """Sixteen trials that follow a law, one of which diverged for a reason that would like to be a script."""
    of = plan.plan_sweep(small.recipe(tmp_path, {"trials": 16}, block_sequences=64))
    draw = np.random.default_rng(0)
    trials = [
        small.trial(
            n,
            of.mixtures[n],
            {name: 2 + np.exp(-3 * share) + draw.normal(0, 0.01) for name, share in of.mixtures[n].items()},
            replicate=r,
        )
        for n, r in of.runs
    ]
    trials[3] = small.trial(3, of.mixtures[3], {}, status="diverged", reason=HOSTILE, loss=None)
    return of, trials


def rendered(of: SweepPlan, trials: list[Trial]) -> str:
    return render.render_page(of, trials, choose.choose(of, trials))


def shown(page: str, language: str) -> str:
    """The text that a reader of one language sees."""
    other = "zh" if language == "en" else "en"
    body = re.sub(
        rf'<span class="{other}" lang="[^"]*">.*?</span>', "", page.partition("<body>")[2], flags=re.DOTALL
    )
    return re.sub(r"<[^>]*>", " ", re.sub(r"<(script|style).*?</\1>", "", body, flags=re.DOTALL))


def test_the_page_leads_with_the_verdict_and_has_every_run(swept: tuple[SweepPlan, list[Trial]]) -> None:
    of, trials = swept
    chosen = choose.choose(of, trials)
    page = rendered(of, trials)
    assert chosen.by == "law"
    for language, says in (("en", "Train with this mixture"), ("zh", "用这个配比")):
        text = shown(page, language)
        assert says in text.partition(f"{chosen.gain:.4f}")[0]
        assert f"{chosen.gain_interval[0]:.4f}" in text
        for trial in trials:
            if trial.status == "finished" and trial.number != 3:
                assert f"{trial.objective(of.sweep.weights):.4f}" in text
    assert page.count('class="bad-row"') == 1
    assert of.data in page


@pytest.mark.parametrize(
    ("count", "level", "says"), [(2, 0.0, "too few"), (12, 1.0, "No law orders unseen mixtures")]
)
def test_where_there_is_nothing_to_choose_by_the_page_says_so_first(
    tmp_path: Path, count: int, level: float, says: str
) -> None:
    of = plan.plan_sweep(small.recipe(tmp_path, {"trials": count}, block_sequences=64))
    draw = np.random.default_rng(3)
    trials = [
        small.trial(
            n, of.mixtures[n], dict.fromkeys(of.domains, 3 + level * draw.normal(0, 0.1)), replicate=r
        )
        for n, r in of.runs
    ]
    page = rendered(of, trials)
    head = shown(page, "en").partition("The mixture")[0]
    assert "No basis for a choice: keep the token shares" in head.partition(says)[0]
    assert says in head
    assert 'class="verdict warn"' in page


def test_a_page_of_a_sweep_that_diverged_altogether_says_that_nothing_is_known(tmp_path: Path) -> None:
    of = plan.plan_sweep(small.recipe(tmp_path))
    trials = [small.trial(n, s, {}, status="diverged", reason="no number") for n, s in enumerate(of.mixtures)]
    assert "all 3 diverged" in shown(rendered(of, trials), "en")


def test_text_of_others_stays_text_and_nothing_is_fetched(swept: tuple[SweepPlan, list[Trial]]) -> None:
    page = rendered(*swept)
    assert "<img" not in page
    assert "alert(1)</script>" not in page
    assert "&lt;/script&gt;" in page
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)


def test_every_word_is_used_and_in_both_languages() -> None:
    source = "".join(
        Path(render.__file__).with_name(name).read_text(encoding="utf-8")
        for name in ("render.py", "report_page.html")
    )
    dynamic = {"regression", "exponential"} | {
        k for k in WORDS if k.startswith(("nav_", "verdict_", "reason_"))
    }
    assert [key for key in WORDS if f'"{key}"' not in source and key not in dynamic] == []
    assert all(chinese and english for chinese, english in WORDS.values())


def test_a_browser_shows_the_page_and_complains_of_nothing(
    swept: tuple[SweepPlan, list[Trial]], tmp_path: Path
) -> None:
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    page = tmp_path / "page.html"
    page.write_text(rendered(*swept), encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/p",
        "--enable-logging=stderr",
    ]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=4000", "--dump-dom"]
    command = [CHROMIUM, *flags, page.as_uri() + "?lang=en"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert 'data-lang="en"' in done.stdout
    assert "CONSOLE" not in done.stderr
