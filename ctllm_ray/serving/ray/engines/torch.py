"""Our own engine (inference/torch_engine.py), on CPUs and GPUs."""

from __future__ import annotations

from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.inference.engine import Engine


def open_engine(folder: str, serve: Serve) -> Engine:
    """The engine for the Hugging Face folder of a Llama model."""
    from ctllm_ray.inference.grammar import GrammarCompiler
    from ctllm_ray.inference.torch_engine import TorchEngine
    from ctllm_ray.model import config
    from ctllm_ray.tokenizer.tokenizer import load_tokenizer

    grammars = GrammarCompiler(load_tokenizer(folder), config.of_folder(folder).vocab_size)
    return TorchEngine.open(folder, serve, grammars)
