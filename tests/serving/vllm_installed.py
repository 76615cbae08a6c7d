"""As much of vLLM as Ray Serve LLM asks for to build a deployment where vLLM cannot be installed.

Ray Serve LLM's own builder runs then, with its own checks of our arguments, up to the point where a replica
starts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import make_dataclass
from types import ModuleType
from unittest.mock import MagicMock

import pytest
import ray

#: Of vLLM 0.29's `AsyncEngineArgs`: the builder refuses an argument that is in none of its dataclasses.
ENGINE_ARGUMENTS = (
    "model",
    "max_model_len",
    "max_num_seqs",
    "tensor_parallel_size",
    "dtype",
    "enable_prefix_caching",
    "max_logprobs",
    "generation_config",
)
MODULES = (
    "vllm",
    "vllm.engine",
    "vllm.engine.arg_utils",
    "vllm.entrypoints",
    "vllm.entrypoints.launchers",
    "vllm.entrypoints.launchers.cli_args",
)
SHAPES = "ray.llm._internal.serve.core.configs.openai_api_models"  # made of vLLM's request and answer classes
MADE_FROM_VLLM = ("ray.llm", "ray.serve.llm")


@contextmanager
def vllm_installed(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Imports of vLLM succeed; what Ray made from it is forgotten afterwards."""
    before = set(sys.modules)
    for name in MODULES:
        module = ModuleType(name)
        module.__path__ = []
        module.__dict__["AsyncEngineArgs"] = make_dataclass("AsyncEngineArgs", ENGINE_ARGUMENTS)
        module.__dict__["FrontendArgs"] = make_dataclass("FrontendArgs", [])
        patch.setitem(sys.modules, name, module)
    patch.setitem(sys.modules, SHAPES, MagicMock())
    patch.setattr(
        ray, "get_runtime_context", MagicMock(return_value=MagicMock(runtime_env={}))
    )  # else Ray starts
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.startswith(MADE_FROM_VLLM):
                del sys.modules[name]
        ray.serve.__dict__.pop("llm", None)  # `from ray.serve import llm` would find it still
