"""Shapes of Llama models, and what follows from a shape by arithmetic: parameters, FLOPs, bytes of the KV
cache.

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

#: Rows beyond the tokenizer's pieces that count as padding of the matrices and not as another vocabulary.
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
    )  # of stretched models: rope_type, factor


def _square(layers: int, width: int, heads: int, ffn_width: int, context_tokens: int) -> ModelConfig:
    """A tied model with full multi-head attention, at 32,000 pieces until a tokenizer says otherwise."""
    head_width = width // heads
    return ModelConfig(layers, width, heads, heads, head_width, ffn_width, 32_000, context_tokens, tied=True)


#: Sizes by name. The small ones are tied, as half of their parameters would be embeddings otherwise; their
#: names are what they count at 32,000 pieces (24.7, 109.5 and 350.5 million). `ct_llm_2b` is the shape of
#: CT-LLM (Du et al. 2024; head count, widths and context from the released training script, untied because
#: the published files have 4.27 GB); RoPE's base is Megatron's default.
SIZES: Mapping[str, ModelConfig] = {
    "tiny": _square(4, 192, 6, 512, 512),  # 1.77 million beside the embeddings: minutes on a laptop
    "25m": _square(7, 384, 6, 1024, 1024),
    "110m": _square(12, 768, 12, 2048, 2048),
    "350m": _square(24, 1024, 16, 2944, 2048),
    "ct_llm_2b": ModelConfig(32, 2048, 16, 16, 128, 5504, 125_696, 4096),
}


def block_matmul_parameters(config: ModelConfig) -> int:
    """Weights of the linear layers of one block."""
    queries = config.width * config.heads * config.head_width
    keys_values = 2 * config.width * config.kv_heads * config.head_width
    return 2 * queries + keys_values + 3 * config.width * config.ffn_width


def matmul_parameters(config: ModelConfig) -> int:
    """Parameters that each token is multiplied with: linear layers and the output matrix, tied or not."""
    return config.layers * block_matmul_parameters(config) + config.vocab_size * config.width


def block_parameters(config: ModelConfig) -> int:
    """All parameters of one block: linear layers, two norms, biases where there are any."""
    attention_bias = (config.heads + 2 * config.kv_heads) * config.head_width + config.width
    mlp_bias = 2 * config.ffn_width + config.width
    biases = attention_bias * config.attention_bias + mlp_bias * config.mlp_bias
    return block_matmul_parameters(config) + 2 * config.width + biases


def embedding_parameters(config: ModelConfig) -> int:
    """Parameters of the input and output matrices; one matrix where they are tied."""
    return config.vocab_size * config.width * (1 if config.tied else 2)


def parameters(config: ModelConfig) -> int:
    """All trained parameters."""
    return config.layers * block_parameters(config) + config.width + embedding_parameters(config)


def flops_per_token(config: ModelConfig, sequence_tokens: int) -> float:
    """FLOPs of training on one token, forward and backward, in PaLM's convention: CT-LLM at 4096 has
    14.48e9."""
    return 6 * matmul_parameters(config) + _attention_flops(config, sequence_tokens)


def causal_flops_per_token(config: ModelConfig, sequence_tokens: int) -> float:
    """FLOPs of training on one token with attention over the past only: CT-LLM at 4096 has 12.87e9."""
    return 6 * matmul_parameters(config) + _attention_flops(config, sequence_tokens) / 2


def _attention_flops(config: ModelConfig, sequence_tokens: int) -> float:
    """Of QK' and of weights times V, 2 T each and head element forward, twice that backward."""
    return 12 * config.layers * config.heads * config.head_width * sequence_tokens


def kv_bytes_per_token(config: ModelConfig, value_bytes: int = 2) -> int:
    """Bytes that one token holds in the KV cache; bf16 unless told otherwise. CT-LLM: 256 KiB."""
    return 2 * config.layers * config.kv_heads * config.head_width * value_bytes


def for_recipe(model: Model, vocab_size: int, sequence_tokens: int) -> ModelConfig:
    """The shape that a recipe trains, with as many rows as the tokenizer has pieces.

    Raises `RecipeError` for an unknown size or a sequence longer than the context, `InputError` where a model
    folder has another vocabulary and the recipe does not say how to bring it over.
    """
    result = of_folder(model.path) if model.path else _size_named(model.use)
    if model.context_tokens:
        result = replace(result, context_tokens=model.context_tokens)
    if sequence_tokens > result.context_tokens:
        raise RecipeError(
            f"sequences of {sequence_tokens} tokens are longer than the model's context of "
            f"{result.context_tokens}",
            where="train.sequence_tokens",
            remedy=f"set model.context_tokens={sequence_tokens}, or shorten the sequences",
        )
    if model.path and model.vocabulary == "same":
        _check_vocabulary(result.vocab_size, vocab_size, model.path)
        return result
    return replace(result, vocab_size=vocab_size)


def _size_named(name: str) -> ModelConfig:
    if name not in SIZES:
        raise RecipeError(f"no size {name!r}", where="model.use", remedy=f"sizes: {', '.join(SIZES)}")
    return SIZES[name]


def _check_vocabulary(rows: int, pieces: int, folder: str) -> None:
    """Raises `InputError` where the model's matrices are not for so many pieces; padding rows are fine."""
    if pieces <= rows < pieces + _PADDING_ROWS:
        return
    raise InputError(
        f"the model has {rows} rows of embeddings, the tokenizer {pieces} pieces",
        where=folder,
        remedy="set model.vocabulary to mean_of_pieces, multivariate_normal or wechsel, or tokenizer.path to its own",
    )


def of_folder(folder: str) -> ModelConfig:
    """The shape of the model in a Hugging Face folder. Raises `InputError` where there is none, or no plain
    Llama."""
    path = storage.join(folder, CONFIG)
    if not storage.exists(path):
        raise InputError(
            "no model here: no config.json", where=folder, remedy="name a Hugging Face Llama folder"
        )
    return from_hugging_face(storage.read_json(path), path)


def from_hugging_face(plain: Mapping[str, Any], where: str = CONFIG) -> ModelConfig:
    """The shape that a config.json tells, with transformers' defaults for what it leaves out."""
    if plain.get("model_type") != "llama" or plain.get("hidden_act", "silu") != "silu":
        raise InputError(
            f"not a Llama model: model_type {plain.get('model_type')!r}, hidden_act "
            f"{plain.get('hidden_act')!r}",
            where=where,
            remedy="name a folder of the Llama architecture",
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
        raise InputError(f"{error} is missing", where=where, remedy="restore the model folder") from None


def to_hugging_face(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """The config.json of this shape. RoPE stands in it in the form of transformers 5 and in the one before
    it, which vLLM and llama.cpp of that time read; so does the number type."""
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
