"""Runs one trial in this process: an ordinary training run, of which only the records are kept. No Ray here.

A killed run resumes from its checkpoint. The checkpoint is deleted once the result is on storage: a sweep
compares mixtures and keeps no models, and a hundred proxies of 100 million parameters would take 120 GB.
Curves and events stay.
"""

from __future__ import annotations

import math
import statistics
import time

from ctllm_ray.base.errors import Diverged
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.mixture import results
from ctllm_ray.mixture.results import Trial
from ctllm_ray.train import session
from ctllm_ray.train.checkpoint import checkpoint, saver
from ctllm_ray.train.steppers.torch import TorchStepper
from ctllm_ray.train.tracking import records


def run_trial(recipe: Recipe) -> Trial:
    """Runs a trial recipe of plan.py. Its result, even a diverged one, is on storage when this returns."""
    began, reason = time.monotonic(), ""
    folder = recipe.folder("train")
    try:
        session.train(recipe, TorchStepper)
    except Diverged as error:
        reason = error.what
    trial = _end_trial(recipe, reason, time.monotonic() - began)
    results.write_trial(recipe.root, trial)
    for step in checkpoint.steps(folder):
        saver.remove(folder, step)
    return trial


def _end_trial(recipe: Recipe, reason: str, seconds: float) -> Trial:
    assert recipe.train is not None
    folder = recipe.folder("train")
    steps = records.read_steps(folder)
    groups = records.read_validation_last(folder).get("groups", {}) if not reason else {}
    bits = {name: each["bits_per_byte"] for name, each in groups.items()}
    if not reason and not all(map(math.isfinite, bits.values())):
        reason, bits = "the bits per byte on held-out documents are not finite", {}
    last = steps[-1] if steps else None
    return Trial(
        number=int(recipe.version.partition("-")[0]),
        replicate=int(recipe.version.partition("-")[2] or 0),
        shares=dict(recipe.train.mixture[0].shares),
        status="diverged" if reason else "finished",
        bits=bits,
        steps=last.step if last else 0,
        tokens=last.tokens if last else 0,
        loss=last.loss if last and math.isfinite(last.loss) else None,
        tokens_per_s=statistics.median(record.tokens_per_s for record in steps) if steps else None,
        seconds=round(seconds, 3),
        reason=reason,
    )
