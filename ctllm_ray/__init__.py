"""From a raw Chinese crawl to a served language model, on Ray: `ctllm` for a shell, these functions for Python.

Names are imported when they are first used, so `import ctllm_ray` brings neither Ray nor torch.
`train` and `evaluate` are folders of this package: the functions are called `train_model` and `evaluate_model`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctllm_ray.api import (
        evaluate_model,
        explain_input_file,
        explain_page,
        prepare_data,
        read_shards,
        replay_thresholds,
        serve_model,
        sweep_mixtures,
        train_model,
    )
    from ctllm_ray.base.recipe import load_recipe
    from ctllm_ray.lineage import trace_lineage
    from ctllm_ray.train.checkpoint.export import export_checkpoint
    from ctllm_ray.train.plan.plan import plan_training

__all__ = [
    "evaluate_model",
    "explain_input_file",
    "explain_page",
    "export_checkpoint",
    "load_recipe",
    "plan_training",
    "prepare_data",
    "read_shards",
    "replay_thresholds",
    "serve_model",
    "sweep_mixtures",
    "trace_lineage",
    "train_model",
]
#: Public functions that stand elsewhere than in api.py.
_ELSEWHERE = {
    "export_checkpoint": "ctllm_ray.train.checkpoint.export",
    "load_recipe": "ctllm_ray.base.recipe",
    "plan_training": "ctllm_ray.train.plan.plan",
    "trace_lineage": "ctllm_ray.lineage",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_ELSEWHERE.get(name, "ctllm_ray.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
