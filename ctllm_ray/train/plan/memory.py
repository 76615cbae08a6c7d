"""Estimates the GPU memory of a training run, by ZeRO stage.

Bytes for each parameter, bf16 (fp32 in brackets), W workers:

    stage 0   weights 4, gradients 4, Adam 8, and under bf16 the casts that autocast keeps, 2
    stage 1   weights 2 [4], gradients 6 [4], optimizer 12/W (fp32 weights and Adam)
    stage 2   weights 2 [4], gradients 4/W, optimizer 12/W
    stage 3   weights 2/W [4/W], gradients 4/W, optimizer 12/W

Gradients are summed in fp32 (train/steppers/deepspeed.py); stage 1 holds them in both number types. DeepSpeed
also has buckets for what it sends. Activations are what autograd keeps of transformers' Llama with a flash
kernel; the counts below were found with saved-tensor hooks and tests hold them to 5 %. `torch.compile` keeps
less. Logits pass in chunks (train/losses/head_loss.py). A tenth of the card is left for the CUDA context,
NCCL and what the allocator cannot use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ctllm_ray.model.config import ModelConfig, parameters

Precision = Literal["fp32", "bf16"]

#: Usable share of a GPU's memory.
USABLE_SHARE = 0.9

#: The values of train/steppers/deepspeed.py and train/losses/head_loss.py, which import torch; this file must
#: not.
BUCKET_ELEMENTS = 200_000_000
CHUNK_LOGITS = 1 << 28
LEAST_CHUNK = 128


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU, by use."""

    stage: int
    weights: float
    gradients: float
    optimizer: float
    buffers: float
    activations: float
    logits: float
    host: float = 0.0  # offloaded optimizer state per worker, in host memory

    @property
    def total(self) -> float:
        """Bytes on the GPU."""
        return self.fixed_bytes + self.activations + self.logits

    @property
    def fixed_bytes(self) -> float:
        """Bytes that do not depend on the size of a micro-batch."""
        return self.weights + self.gradients + self.optimizer + self.buffers


@dataclass(frozen=True)
class MemoryLoad:
    """The work of one worker at a time."""

    precision: Precision
    sequence_tokens: int
    micro_sequences: int
    checkpointed: bool  # activation checkpointing
    offloaded: bool  # optimizer state in host memory


def estimate_memory(config: ModelConfig, load: MemoryLoad, stage: int, workers: int) -> Memory:
    """The memory of one worker."""
    count = parameters(config)
    weights, gradients, optimizer = (count * share for share in _shares(load.precision, stage, workers))
    tokens = load.micro_sequences * load.sequence_tokens
    host = optimizer if load.offloaded and stage else 0.0
    return Memory(
        stage=stage,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer - host,
        buffers=2 * 4.0 * min(count, BUCKET_ELEMENTS) if stage else 0.0,
        activations=tokens * activation_bytes(config, load.precision, load.checkpointed, stage),
        logits=logits_bytes(config, tokens, load.precision),
        host=host,
    )


def _shares(precision: Precision, stage: int, workers: int) -> tuple[float, float, float]:
    """Bytes of weights, gradients and optimizer state per parameter."""
    if stage == 0:
        return (6.0 if precision == "bf16" else 4.0), 4.0, 8.0
    weights = 2.0 if precision == "bf16" else 4.0
    both = 6.0 if precision == "bf16" else 4.0
    gradients = both if stage == 1 else 4 / workers
    return (weights / workers if stage == 3 else weights), gradients, 12 / workers


def activation_bytes(config: ModelConfig, precision: Precision, checkpointed: bool, stage: int) -> float:
    """Bytes that autograd keeps of the blocks, per position."""
    stream = 2 if precision == "bf16" and stage else 4  # the residual stream: bf16, or fp32 under autocast
    whole = block_activation_bytes(config, precision, stage)
    if checkpointed:
        return config.layers * stream * config.width + whole
    return config.layers * whole


def block_activation_bytes(config: ModelConfig, precision: Precision, stage: int) -> float:
    """Bytes that autograd keeps of one block, per position.

    Norms keep their input in fp32 and what they give; attention keeps queries, keys, values and its result;
    the MLP keeps the gate before and after its activation, the other half, and their product.
    """
    value = 2 if precision == "bf16" else 4
    queries, keys_values = config.heads * config.head_width, 2 * config.kv_heads * config.head_width
    norms = 24 if precision == "fp32" else 16 if stage else 26
    return norms * config.width + value * (2 * queries + keys_values) + 4 * value * config.ffn_width


def logits_bytes(config: ModelConfig, tokens: int, precision: Precision) -> float:
    """Bytes of a chunk's logits, their logarithms and gradients, and of the output matrix's fp32 gradient."""
    chunk = min(tokens, max(LEAST_CHUNK, CHUNK_LOGITS // config.vocab_size))
    held = 8 if precision == "bf16" else 12
    return held * chunk * config.vocab_size + 4 * config.vocab_size * config.width


def most_sequences(config: ModelConfig, load: MemoryLoad, stage: int, workers: int, card_bytes: float) -> int:
    """The maximum number of sequences per forward pass that fits a GPU; 0 if not even one does."""
    one = estimate_memory(config, load, stage, workers)
    of_one = one.activations / load.micro_sequences
    room = card_bytes * USABLE_SHARE - one.fixed_bytes - logits_bytes(config, 1 << 40, load.precision)
    return max(0, int(room // of_one))
