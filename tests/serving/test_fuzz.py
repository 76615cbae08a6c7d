"""What a fuzzer makes of the API's own OpenAPI document: whatever it sends, the server answers without a
fault."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from ctllm_ray.base.recipe_evaluation import Evaluate
from ctllm_ray.evaluate.models.model_under_test import EngineModel
from ctllm_ray.serving.evaluations.service import EvaluationContext, Evaluations
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from tests.evaluate.conftest import exam_rows, lines
from tests.inference.scripted_engine import ScriptedEngine
from tests.serving.apps import MODEL, running, served

CHECKS = [not_a_server_error, content_type_conformance, status_code_conformance]
MODES = schemathesis.GenerationMode


@pytest.mark.parametrize("mode", [MODES.POSITIVE, MODES.NEGATIVE])
def test_no_request_makes_a_server_error(tokenizer: SentencePiece, tmp_path: Path, mode: MODES) -> None:
    limits = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
    engine = ScriptedEngine()
    exam = lines(tmp_path / "exam.jsonl", exam_rows(2))
    part = Evaluate.model_validate(
        {"tasks": [{"use": "cmmlu", "path": exam, "subjects": [], "shots": 0, "limit": 0}]}
    )
    subject = EngineModel(engine, tokenizer, frozenset())
    there = EvaluationContext(part, str(tmp_path / "evaluations"), subject, tokenizer, {}, at_once=2)
    with running(served(engine, tokenizer, tmp_path, evaluations=Evaluations(lambda: there))) as url:
        document = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = [found.ok() for found in document.get_all_operations()]
        assert len(operations) >= 15
        for operation in operations:

            @limits
            @given(case=operation.as_strategy(generation_mode=mode))
            def asked(case: schemathesis.Case) -> None:
                if isinstance(case.body, dict) and "model" in case.body:
                    case.body["model"] = MODEL  # else all would end at a 404
                case.call_and_validate(checks=CHECKS)

            asked()
    assert mode is MODES.NEGATIVE or len(engine.seen) > 20
