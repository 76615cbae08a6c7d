"""Writes the results of a sweep: the mixture as a file for training, the choice with its reasons, and a page.

`mixture.yaml` is the value of `train.mixture` (`ctllm train RECIPE train.mixture=@.../mixture.yaml`); what it
rests on, the hash of the data among it, stands above it in comments. `choice.json` has the same and the laws
for programs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ctllm_ray.base import storage
from ctllm_ray.mixture.choose import Choice, choose
from ctllm_ray.mixture.plan import SweepPlan, run_name
from ctllm_ray.mixture.quality import Fit
from ctllm_ray.mixture.report import render
from ctllm_ray.mixture.results import Trial

MIXTURE, CHOICE, REPORT = "mixture.yaml", "choice.json", "report.html"


def write_outcome(plan: SweepPlan, trials: Sequence[Trial]) -> Choice:
    """Chooses by the trials; writes mixture.yaml, choice.json and report.html to the sweep's folder."""
    chosen = choose(plan, trials)
    storage.write_bytes(storage.join(plan.folder, MIXTURE), mixture_file(plan, trials, chosen).encode())
    storage.write_json(storage.join(plan.folder, CHOICE), facts(plan, trials, chosen))
    storage.write_bytes(storage.join(plan.folder, REPORT), render.render_page(plan, trials, chosen).encode())
    return chosen


def words(shares: Mapping[str, float]) -> str:
    """A mixture in one line."""
    return ", ".join(
        f"{name} {share:.1%}" for name, share in sorted(shares.items(), key=lambda item: -item[1])
    )


def mixture_file(plan: SweepPlan, trials: Sequence[Trial], chosen: Choice) -> str:
    """YAML of the mixture's single phase, with comments above."""
    said = [
        f"By `ctllm sweep` of {plan.recipe.name} {plan.recipe.version}, from {len(trials)} trials of "
        f"{plan.sweep.tokens:,} tokens.",
        chosen.why,
        *([f"As good: {_ranges(chosen.runner_up)}."] if chosen.runner_up else []),
        f"Token shards: sha256 {plan.data}",
    ]
    return "".join(f"# {line}\n" for line in said) + yaml.safe_dump(
        [{"shares": chosen.shares}], allow_unicode=True, sort_keys=False
    )


def _ranges(shares: Mapping[str, tuple[float, float]]) -> str:
    return ", ".join(f"{name} {low:.3f} to {high:.3f}" for name, (low, high) in shares.items())


def facts(plan: SweepPlan, trials: Sequence[Trial], chosen: Choice) -> dict[str, Any]:
    """The choice as plain values; unknown values are null."""
    return {
        "by": chosen.by,
        "why": chosen.why,
        "reason": chosen.reason,
        "shares": chosen.shares,
        "token_shares": plan.token_shares,
        "expected_bits": _finite_or_none(chosen.expected),
        "token_shares_bits": _finite_or_none(chosen.baseline),
        "gain_bits": _finite_or_none(chosen.gain),
        "gain_interval_bits": [_finite_or_none(value) for value in chosen.gain_interval],
        "p": _finite_or_none(chosen.p),
        "noise_bits": _finite_or_none(chosen.noise.deviation),
        "noise_freedom": chosen.noise.freedom,
        "runner_up": {name: list(span) for name, span in chosen.runner_up.items()},
        "runner_up_share": _finite_or_none(chosen.runner_up_share),
        "at_edge": list(chosen.at_edge),
        "laws": [_law(plan, fit) for fit in chosen.fits],
        "trials": len(trials),
        "diverged": [
            run_name(trial.number, trial.replicate) for trial in trials if trial.status == "diverged"
        ],
        "weights": plan.sweep.weights,
        "data": plan.data,
    }


def _law(plan: SweepPlan, fit: Fit) -> dict[str, Any]:
    return {
        "law": fit.law,
        "rank_correlation": fit.rank_correlation,
        "interval": list(fit.interval),
        "error_bits": fit.error_bits,
        "groups": list(plan.region.groups),
        "parameters": {domain: values.tolist() for domain, values in fit.parameters.items()},
    }


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
