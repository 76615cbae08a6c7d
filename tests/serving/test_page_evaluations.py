"""The results tab in a real browser: evaluations begun, watched, cancelled, and text of strangers that stays
text."""

from __future__ import annotations

from typing import Any

from ctllm_ray.serving.evaluations.service import State
from tests.serving.browser import Tab
from tests.serving.stage import Stage, playing
from tests.serving.test_page import HOSTILE, Visit, browser, visit

__all__ = ["browser", "visit"]  # fixtures
TASKS = ["cmmlu", "chc_bench"]


def score(benchmark: str, part: str = "", **changes: Any) -> dict[str, Any]:
    """A score as results.json has it."""
    plain = {
        "benchmark": benchmark, "part": part, "kind": "share", "value": 0.415, "stderr": 0.01, "low": 0.39,
        "high": 0.44, "items": 1000, "scored": 1000, "too_long": 0, "unparsable": 0, "chance": 0.25,
        "parts_mean": None,
    }  # fmt: skip
    return plain | changes


def evaluation(id_: str, **changes: Any) -> dict[str, Any]:
    return State(id=id_, tasks=TASKS, created=1_795_000_000, **changes).model_dump(mode="json")


DONE = evaluation(
    "eval-1",
    status="done",
    scores=[
        score("cmmlu", parts_mean=0.407, scored=990, too_long=10),
        score("cmmlu", "anatomy", items=20, scored=20, low=0.2, high=0.61),
        score("cmmlu", "arts", items=20, scored=20, value=None, low=None, high=None, chance=None),
        score(
            "chc_bench",
            kind="mark",
            value=6.25,
            low=5.5,
            high=7.0,
            chance=None,
            items=214,
            scored=210,
            unparsable=4,
        ),
        score("bits_per_byte", kind="bits", value=1.2345, low=1.2, high=1.3, chance=None),
    ],
)


def results(visit: Visit, stage: Stage) -> Tab:
    """The page at its tab of results."""
    tab = visit(stage.url)
    tab.until("!document.getElementById('to-evaluations').hidden")
    tab.click("#to-evaluations")
    tab.until("!document.getElementById('evaluations').hidden")
    return tab


def test_a_server_without_tasks_has_no_tab_of_results(visit: Visit) -> None:
    with playing() as stage:
        tab = visit(stage.url)
        tab.until("document.getElementById('tries').children.length > 0")
        assert tab.run("document.getElementById('to-evaluations').hidden")


def test_results_are_shown_with_their_intervals_and_what_was_not_scored(visit: Visit) -> None:
    with playing(tasks=TASKS, evaluations=[DONE]) as stage:
        tab = results(visit, stage)
        tab.shows("#evaluated", "完成")
        text = tab.text("#evaluated")
        for part in (
            "41.5 %",
            "39.0 % – 44.0 %",
            "990 / 1,000",
            "10 题超出上下文",
            "6.25",
            "4 份评语无分数",
            "1.2345",
        ):
            assert part in text
        assert "2 个分项，平均 40.7 %" in text
        assert tab.run("document.querySelector('.scale .value').style.left") == "41.5%"
        assert tab.run("document.querySelectorAll('.scale.sure').length") == 1
        tab.click('[data-set-lang="en"]')
        assert "10 too long" in tab.text("#evaluated")


def test_an_evaluation_is_begun_watched_and_cancelled(visit: Visit) -> None:
    running = evaluation("eval-2", status="running", asked="scores", answered=30, total=120)
    with playing(tasks=TASKS) as stage:
        tab = results(visit, stage)
        tab.shows("#none-yet", "还没有评测过")
        tab.write("#limit", "5")
        stage.evaluations = [evaluation("eval-3", limit=5), running]
        tab.click("#evaluate .go")
        tab.shows("#evaluated", "进行中")
        assert ("/v1/evaluations", {"limit": 5}) in stage.asked
        assert "选项打分 30 / 120" in tab.text("#evaluated")
        assert "每项最多 5 题" in tab.text("#evaluated")
        tab.click("#eval-2 button")
        stage.evaluations = [DONE]
        tab.shows("#evaluated", "完成")
        assert ("/v1/evaluations/eval-2/cancel", {}) in stage.asked


def test_names_and_errors_of_strangers_stay_text(visit: Visit) -> None:
    failed = evaluation("eval-4", status="failed", error=HOSTILE)
    hostile = evaluation("eval-5", status="done", scores=[score(HOSTILE), score(HOSTILE, HOSTILE)])
    with playing(tasks=[HOSTILE], evaluations=[failed, hostile]) as stage:
        tab = results(visit, stage)
        tab.shows("#evaluated", "失败")
        assert tab.run("document.querySelectorAll('#evaluations img, #evaluations script').length") == 0
        assert tab.run("document.title") == "tiny-1"
        assert "U+202E" in tab.text("#evaluated")
