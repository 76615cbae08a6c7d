"""Several measure stages in one recipe: what the first one stored stays, so replay and `why` read what the
run saw."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus.explain import replay
from ctllm_ray.shards import reader
from tests.corpus.conftest import run_here

Make = Callable[..., Recipe]

TALK = {"talk": [{"use": "document.sentence_count", "min": 5}]}
FIRST = {
    "use": "measure",
    "genres": TALK,
    "rules": [{"use": "document.char_count", "min": 100, "unless": ["talk"]}],
}
SECOND = {
    "use": "measure",
    "rules": [{"use": "repetition.covered_share", "n": 2, "max": 0.05, "unless": ["talk"]}],
}


def test_a_replay_of_two_measure_stages_takes_the_decisions_of_the_run(make: Make) -> None:
    recipe = make(stages=[FIRST, SECOND])
    finished = pipeline.clean(recipe, run_here)
    assert {"reject:document.char_count", "reject:repetition.covered_share.n2"} <= finished.counts.keys()
    result = replay.replay_bounds(recipe.folder("clean"), finished, recipe, [])
    assert result.before == result.after
    assert not result.moves


def test_pages_that_the_first_stage_dropped_keep_its_scores_and_later_stages_know_its_genres(
    make: Make,
) -> None:
    recipe = make(stages=[FIRST, SECOND])
    finished = pipeline.clean(recipe, run_here)
    rows = [
        row
        for kind in ("kept", "rejected")
        for _, table in reader.tables(recipe.folder("clean"), finished, kind)
        for row in table.to_pylist()
        if not (row["reject"] or "").startswith("error.")
    ]
    assert all(row["scores"]["document.char_count"] == len(row["text"]) for row in rows)
    assert {row["labels"]["genre"] for row in rows} == {"talk", "prose"}
    assert all(row["reject"] is None for row in rows if row["labels"]["genre"] == "talk")
    assert any(
        (row["scores"]["repetition.covered_share.n2"] or 0) > 0.05 for row in rows if row["reject"] is None
    )


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([FIRST, SECOND | {"genres": TALK}], "two stages define genres"),
        (
            [FIRST, {"use": "measure", "rules": [FIRST["rules"][0] | {"name": "again"}]}],
            "measured with different options",
        ),
        (
            [FIRST, {"use": "measure", "rules": [{"use": "document.sentence_count"}]}],
            "measured with different options",
        ),
        (
            [
                {
                    "use": "measure",
                    "rules": [
                        {"use": "url.blocklist", "folder": "/lists", "categories": ["adult"], "in": [""]},
                        {
                            "use": "url.blocklist",
                            "folder": "/lists",
                            "categories": ["malware"],
                            "in": [""],
                            "name": "b",
                        },
                    ],
                }
            ],
            "measured with different options",
        ),
    ],
)
def test_a_column_that_would_hold_two_things_is_refused(make: Make, stages: list[dict], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        make(stages=stages)


def test_one_score_may_have_two_rules_and_an_earlier_stages_score_may_be_bounded_anywhere(make: Make) -> None:
    twice = [
        {"use": "document.char_count", "min": 10},
        {"use": "document.char_count", "max": 900, "name": "long"},
    ]
    suspect = {"use": "mojibake.suspect_share", "max": 0.05}
    stages = [
        {"use": "mojibake"},
        {"use": "measure", "rules": [*twice, suspect]},
        {"use": "measure", "rules": [suspect | {"name": "b"}]},
    ]
    assert len(make(stages=stages).stages) == 3
