"""Shapes of Llama models, and arithmetic on them: parameters, FLOPs, bytes of the KV cache.

No torch here: `ctllm plan` and recipes use it. Every formula is held against the built model by tests/model.
Two FLOP conventions are in use and differ by 11 % for CT-LLM, so a number without its convention says little:

* `flops_per_token`, PaLM's (Chowdhery et al. 2022, appendix B): 6 for each matmul parameter, 12 LHQT for
  attention as if it were not causal. It is what published MFU figures use, and what `mfu` means everywhere in
  this project.
* `causal_flops_per_token`: the same with half the attention, which is the work that a causal kernel does.

Neither counts what activation checkpointing computes twice: that is what makes it MFU and not HFU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, RecipeError

if TYPE_CHECKING:
    from ctllm_ray.base.recipe_training import Model  # pydantic: the GPU benchmark runs without it

CONFIG = "config.json"

#: Matrix sizes that are not a multiple of this run slower on tensor cores.
ALIGNMENT = 64

#: Rows beyond the tokenizer's pieces that count as padding, not as another vocabulary.
_PADDING_ROWS = 256


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a Llama model."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int
    vocab_size: int
    context_tokens: int
    norm_epsilon: float = 1e-5
    rope_theta: float = 10_000.0
    tied: bool = False  # input and output embedding are one matrix
    init_std: float = 0.02
    attention_bias: bool = False
    mlp_bias: bool = False
    rope_scaling: Mapping[str, Any] = field(
        default_factory=dict, hash=False
    )  # for models with extended context: rope_type, factor


def _square(layers: int, width: int, heads: int, ffn_width: int, context_tokens: int) -> ModelConfig:
    """A tied model with full multi-head attention; 32,000 pieces until a tokenizer sets the number."""
    head_width = width // heads
    return ModelConfig(layers, width, heads, heads, head_width, ffn_width, 32_000, context_tokens, tied=True)


#: Sizes by name. The small ones are tied: else half of their parameters would be embeddings. Their names give
#: the parameters at 32,000 pieces (24.7, 109.5 and 350.5 million). `ct_llm_2b` is the shape of CT-LLM (Du et
#: al. 2024): head count, widths and context from the released training script, untied because the published
#: files have 4.27 GB. RoPE's base is Megatron's default.
SIZES: Mapping[str, ModelConfig] = {
    # 1.77 million parameters without embeddings: trains in minutes on a laptop
    "tiny": _square(4, 192, 6, 512, 512),
    "25m": _square(7, 384, 6, 1024, 1024),
    "110m": _square(12, 768, 12, 2048, 2048),
    "350m": _square(24, 1024, 16, 2944, 2048),
    "ct_llm_2b": ModelConfig(32, 2048, 16, 16, 128, 5504, 125_696, 4096),
}


def block_matmul_parameters(config: ModelConfig) -> int:
    """Parameters in the linear layers of one block."""
    queries = config.width * config.heads * config.head_width
    keys_values = 2 * config.width * config.kv_heads * config.head_width
    return 2 * queries + keys_values + 3 * config.width * config.ffn_width


def matmul_parameters(config: ModelConfig) -> int:
    """Parameters that multiply each token: linear layers and the output matrix, tied or not."""
    return config.layers * block_matmul_parameters(config) + config.vocab_size * config.width


def block_parameters(config: ModelConfig) -> int:
    """All parameters of one block: linear layers, two norms, and biases if any."""
    attention_bias = (config.heads + 2 * config.kv_heads) * config.head_width + config.width
    mlp_bias = 2 * config.ffn_width + config.width
    biases = attention_bias * config.attention_bias + mlp_bias * config.mlp_bias
    return block_matmul_parameters(config) + 2 * config.width + biases


def embedding_parameters(config: ModelConfig) -> int:
    """Parameters of the input and output matrices; one matrix if they are tied."""
    return config.vocab_size * config.width * (1 if config.tied else 2)


def parameters(config: ModelConfig) -> int:
    """All trained parameters."""
    return config.layers * block_parameters(config) + config.width + embedding_parameters(config)


def flops_per_token(config: ModelConfig, sequence_tokens: int) -> float:
    """Training FLOPs per token, forward and backward, in PaLM's convention. CT-LLM at 4096: 14.48e9."""
    return 6 * matmul_parameters(config) + _attention_flops(config, sequence_tokens)


def causal_flops_per_token(config: ModelConfig, sequence_tokens: int) -> float:
    """Training FLOPs per token with causal attention. CT-LLM at 4096: 12.87e9."""
    return 6 * matmul_parameters(config) + _attention_flops(config, sequence_tokens) / 2


def _attention_flops(config: ModelConfig, sequence_tokens: int) -> float:
    """FLOPs of QK' and of weights times V: 2 T each per head element forward, twice that backward."""
    return 12 * config.layers * config.heads * config.head_width * sequence_tokens


def kv_bytes_per_token(config: ModelConfig, value_bytes: int = 2) -> int:
    """KV cache bytes per token; bf16 by default. CT-LLM: 256 KiB."""
    return 2 * config.layers * config.kv_heads * config.head_width * value_bytes


def for_recipe(model: Model, vocab_size: int, sequence_tokens: int) -> ModelConfig:
    """The model shape of a recipe, with as many rows as the tokenizer has pieces.

    Raises `RecipeError` for an unknown size, or a sequence longer than the context. Raises `InputError` if a
    model folder has another vocabulary and the recipe does not say how to convert it.
    """
    config = of_folder(model.path) if model.path else _size_named(model.use)
    if model.context_tokens:
        config = replace(config, context_tokens=model.context_tokens)
    if sequence_tokens > config.context_tokens:
        raise RecipeError(
            f"sequences of {sequence_tokens} tokens do not fit the model's context of "
            f"{config.context_tokens}",
            where="train.sequence_tokens",
            remedy=f"set model.context_tokens={sequence_tokens}, or lower train.sequence_tokens",
        )
    if model.path and model.vocabulary == "same":
        _check_vocabulary(config.vocab_size, vocab_size, model.path)
        return config
    return replace(config, vocab_size=vocab_size)


def _size_named(name: str) -> ModelConfig:
    if name not in SIZES:
        raise RecipeError(
            f"unknown model size {name!r}", where="model.use", remedy=f"use one of {', '.join(SIZES)}"
        )
    return SIZES[name]


def _check_vocabulary(rows: int, pieces: int, folder: str) -> None:
    """Raises `InputError` if the model's matrices do not
    match the number of pieces. Padding rows are allowed."""
    if pieces <= rows < pieces + _PADDING_ROWS:
        return
    raise InputError(
        f"the model has {rows} embedding rows, the tokenizer has {pieces} pieces",
        where=folder,
        remedy="set model.vocabulary to mean_of_pieces, multivariate_normal or wechsel, or "
        "tokenizer.path to the model's tokenizer",
    )


def of_folder(folder: str) -> ModelConfig:
    """The shape of the model in a Hugging Face folder. Raises `InputError` if there is none,
    or it is not a plain Llama."""
    path = storage.join(folder, CONFIG)
    if not storage.exists(path):
        raise InputError(
            "the folder has no model: config.json is missing",
            where=folder,
            remedy="give a Hugging Face folder with a Llama model",
        )
    return from_hugging_face(storage.read_json(path), path)


def from_hugging_face(plain: Mapping[str, Any], where: str = CONFIG) -> ModelConfig:
    """The shape in a config.json. Missing keys get transformers' defaults."""
    if plain.get("model_type") != "llama" or plain.get("hidden_act", "silu") != "silu":
        raise InputError(
            f"the model is not a Llama: model_type {plain.get('model_type')!r}, hidden_act "
            f"{plain.get('hidden_act')!r}",
            where=where,
            remedy="give a folder with a model of the Llama architecture",
        )
    rope = plain.get("rope_parameters") or plain.get("rope_scaling") or {}
    scaling = {k: v for k, v in rope.items() if k != "rope_theta"}
    try:
        return ModelConfig(
            layers=plain["num_hidden_layers"],
            width=plain["hidden_size"],
            heads=plain["num_attention_heads"],
            kv_heads=plain.get("num_key_value_heads") or plain["num_attention_heads"],
            head_width=plain.get("head_dim") or plain["hidden_size"] // plain["num_attention_heads"],
            ffn_width=plain["intermediate_size"],
            vocab_size=plain["vocab_size"],
            context_tokens=plain.get("max_position_embeddings", 2048),
            norm_epsilon=plain.get("rms_norm_eps", 1e-6),
            rope_theta=float(rope.get("rope_theta") or plain.get("rope_theta", 10_000.0)),
            tied=plain.get("tie_word_embeddings", False),
            init_std=plain.get("initializer_range", 0.02),
            attention_bias=plain.get("attention_bias", False),
            mlp_bias=plain.get("mlp_bias", False),
            rope_scaling={}
            if scaling.get("rope_type", scaling.get("type")) in (None, "default")
            else scaling,
        )
    except KeyError as error:
        raise InputError(
            f"the key {error} is missing in config.json", where=where, remedy="restore the model folder"
        ) from None


def to_hugging_face(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """The config.json of this shape. RoPE and the number type are written in the form of transformers 5 and
    in the older form, which earlier vLLM and llama.cpp read."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": config.layers,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.ffn_width,
        "hidden_act": "silu",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_tokens,
        "rms_norm_eps": config.norm_epsilon,
        "rope_parameters": {"rope_type": "default"}
        | dict(config.rope_scaling)
        | {"rope_theta": config.rope_theta},
        "rope_theta": config.rope_theta,
        "rope_scaling": dict(config.rope_scaling) or None,
        "tie_word_embeddings": config.tied,
        "initializer_range": config.init_std,
        "attention_bias": config.attention_bias,
        "attention_dropout": 0.0,
        "mlp_bias": config.mlp_bias,
        "dtype": dtype,
        "torch_dtype": dtype,
    }
