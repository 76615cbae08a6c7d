"""Fixtures that many tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctllm_ray.base import outage

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores that do not answer are given up after a moment."""
    monkeypatch.setattr(outage, "PATIENCE_S", 0.3)
    monkeypatch.setattr(outage, "FIRST_S", 0.1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; a test that asks for it is skipped where there is none."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}")
    return folder
