"""A rule of a recipe: a measure, its options, its thresholds, and the genres it applies to.

Measures measure and recipes decide. Bounds are compared in float32, the type in which scores are stored, so a
replay over stored scores takes the very decisions that the run took.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ctllm_ray.base import resolve
from ctllm_ray.base.errors import RecipeError

BOUNDS = ("min", "max", "above", "below")
_FIELDS = {"use", "score", "name", "in", "accept", "only", "unless", *BOUNDS}


def _brief(value: Any) -> bool:
    """True for an option that is part of a score's name: a number or a plain word, not a path or a list."""
    return isinstance(value, int | float) or (isinstance(value, str) and value.isidentifier())


def _part(key: str, value: Any) -> str:
    """An option in a score's name: `n5` for n: 5, `gambling` for category: gambling."""
    return value if isinstance(value, str) else f"{key}{value}"


class Rule(BaseModel):
    """`min`/`max` are inclusive, `above`/`below` exclusive, `in` lists the labels that pass.

    Keys that are none of the fields below are options of the measure. A rule without bounds only
    measures. A score that is NaN or null (a url measure on a page without url) passes every bound:
    the rule has nothing to say.
    """

    model_config = ConfigDict(extra="allow", frozen=True, serialize_by_alias=True)

    use: str
    score: str = ""  # column of the value; always the measure and its number options
    name: str = ""  # the reject reason; default: the score. Set it if two rules use one score
    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None
    accept: tuple[str, ...] | None = Field(None, alias="in")
    only: tuple[str, ...] = ()  # genres it applies to; empty: all
    unless: tuple[str, ...] = ()  # genres it does not apply to

    @model_validator(mode="before")
    @classmethod
    def _name_by_use(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("use"), str):
            return value
        options = {k: v for k, v in value.items() if k not in _FIELDS}
        if not all(isinstance(key, str) for key in options):
            raise ValueError(
                "a rule's key must be a word; YAML reads on, off, yes and no as truth "
                "values: put them in quotes"
            )
        score = ".".join([value["use"], *(_part(k, v) for k, v in sorted(options.items()) if _brief(v))])
        return value | {"score": score, "name": value.get("name") or score}

    @model_validator(mode="after")
    def _sensible(self) -> Rule:
        self._check_measure()
        low = [b for b in (self.min, self.above) if b is not None]
        high = [b for b in (self.max, self.below) if b is not None]
        if low and high and max(low) > min(high):
            raise ValueError(f"no value is at least {max(low):g} and at most {min(high):g}")
        if any(not np.isfinite(b) for b in low + high):
            raise ValueError("a threshold must be a finite number")
        if self.accept is not None and (low + high or not self.is_label):
            raise ValueError("use `in` for a label; use min, max, above and below for a score")
        if self.is_label and low + high:
            raise ValueError("this measure gives a label: use `in: [...]`")
        return self

    def _check_measure(self) -> None:
        """Raises `RecipeError` for an unknown measure or option."""
        added = [n for s in resolve.names(resolve.STAGES) for n in self._added_by(s)]
        if self.use in added:
            return
        measures = resolve.names(resolve.MEASURES)
        if self.use not in measures:
            remedy = resolve.nearest(self.use, [*measures, *added])
            raise RecipeError(f"unknown measure {self.use!r}", where=f"rule {self.name!r}", remedy=remedy)
        resolve.check_options(
            resolve.resolve(resolve.MEASURES, self.use), self.options, f"rule {self.name!r}"
        )

    @staticmethod
    def _added_by(stage: str) -> tuple[str, ...]:
        columns = [
            resolve.declared_names(resolve.STAGES, stage, constant) for constant in ("SCORES", "LABELS")
        ]
        return (*columns[0], *columns[1])

    @property
    def options(self) -> dict[str, Any]:
        """The options of the measure."""
        return dict(self.model_extra or {})

    @property
    def bounds(self) -> dict[str, float]:
        """The numeric thresholds, by key."""
        return {key: value for key in BOUNDS if (value := getattr(self, key)) is not None}

    @property
    def is_label(self) -> bool:
        """True if the measure gives a label instead of a number."""
        if self.use not in resolve.names(resolve.MEASURES):
            return any(
                self.use in resolve.declared_names(resolve.STAGES, s, "LABELS")
                for s in resolve.names(resolve.STAGES)
            )
        return resolve.resolve(resolve.MEASURES, self.use).__annotations__.get("return") in {"str", str}

    @property
    def decides(self) -> bool:
        """False for a rule that only measures."""
        return bool(self.bounds) or self.accept is not None

    def applies(self, genres: np.ndarray) -> np.ndarray:
        """True where the rule applies to a document's genre (array of str)."""
        spared = np.isin(genres, self.unless)
        return ~spared & np.isin(genres, self.only) if self.only else ~spared

    def find_violations(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which float32 scores break a threshold (boolean), and which threshold (float32, NaN if none)."""
        broken = np.full(len(scores), np.nan, np.float32)
        tests = {"min": np.less, "max": np.greater, "above": np.less_equal, "below": np.greater_equal}
        for key, bound in self.bounds.items():
            limit = np.float32(bound)
            with np.errstate(invalid="ignore"):
                broken[tests[key](scores, limit)] = limit
        return ~np.isnan(broken), broken
