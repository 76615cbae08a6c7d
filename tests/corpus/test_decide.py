"""Which rule a document is charged to."""

from __future__ import annotations

import numpy as np

from ctllm_ray.base.recipe_rules import Rule
from ctllm_ray.corpus.decide import decide

RULES = [
    Rule.model_validate({"use": "document.char_count", "min": 60}),
    Rule.model_validate({"use": "document.digit_share", "max": 0.3}),
    Rule.model_validate({"use": "document.symbol_share", "max": 0.1}),
]
COLUMNS = {
    "document.char_count": np.array([10, 100, 10, 100], np.float32),
    "document.digit_share": np.array([0.5, 0.5, 0.1, 0.1], np.float32),
    "document.symbol_share": np.array([0.2, 0.2, 0.2, 0.0], np.float32),
}


def test_a_document_that_breaks_several_rules_is_charged_to_the_first_with_its_value_and_bound() -> None:
    found = decide(RULES, COLUMNS, np.array(["prose"] * 4))
    assert found.rule.tolist() == [0, 1, 0, -1]
    assert found.value[:3].tolist() == [10, 0.5, 10]
    assert found.bound[:3].tolist() == [60, np.float32(0.3), 60]
    assert np.isnan([found.value[3], found.bound[3]]).all()
    again = decide(RULES[::-1], COLUMNS, np.array(["prose"] * 4))
    assert again.rule.tolist() == [0, 0, 0, -1]
