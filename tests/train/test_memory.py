"""The memory that is planned against what autograd keeps, and the ZeRO table against hand counts."""

from __future__ import annotations

import pytest
import torch

from ctllm_ray.model import llama
from ctllm_ray.model.config import SIZES, ModelConfig, parameters
from ctllm_ray.train.losses import head_loss
from ctllm_ray.train.plan import memory
from ctllm_ray.train.plan.memory import MemoryLoad, Precision, estimate_memory, most_sequences
from ctllm_ray.train.steppers import deepspeed

CT_LLM = SIZES["ct_llm_2b"]
LOAD = MemoryLoad("bf16", 4096, 1, checkpointed=False, offloaded=False)


def kept_bytes(
    config: ModelConfig, tokens: int, precision: Precision, stage: int, checkpointed: int = 0
) -> int:
    """Bytes that autograd keeps of a forward pass, parameters and their casts left out."""
    model = llama.build(config, seed=1).train()
    if precision == "bf16" and stage:
        model.to(torch.bfloat16)
    if checkpointed:
        llama.checkpoint_activations(model)
    mine = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in mine:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16" and not stage)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        llama.forward_hidden(model, {"input_ids": torch.zeros(1, tokens, dtype=torch.long)})
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize(("precision", "stage"), [("bf16", 0), ("bf16", 1), ("fp32", 0), ("fp32", 1)])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_activations_of_a_block_are_within_5_percent_of_what_autograd_keeps(
    precision: Precision, stage: int, kv_heads: int
) -> None:
    shapes = [ModelConfig(layers, 256, 4, kv_heads, 64, 688, 512, 512) for layers in (2, 4)]
    two, four = ([kept_bytes(shape, tokens, precision, stage) for tokens in (128, 256)] for shape in shapes)
    measured = (
        ((four[1] - four[0]) - (two[1] - two[0])) / 2 / 128
    )  # of one block and position: casts of weights cancel
    assert memory.block_activation_bytes(shapes[0], precision, stage) == pytest.approx(measured, rel=0.05)


def test_checkpointed_blocks_keep_their_input_only() -> None:
    shapes = [ModelConfig(layers, 256, 4, 4, 64, 688, 512, 512) for layers in (2, 4)]
    two, four = (kept_bytes(shape, 256, "bf16", 1, checkpointed=1) for shape in shapes)
    assert (four - two) / 2 / 256 == 2 * 256
    whole = memory.block_activation_bytes(shapes[0], "bf16", 1)
    assert memory.activation_bytes(shapes[0], "bf16", checkpointed=True, stage=1) == 2 * 2 * 256 + whole


def test_bytes_for_each_parameter_by_stage_on_8_gpus() -> None:
    count = parameters(CT_LLM)
    by_stage = [estimate_memory(CT_LLM, LOAD, stage, 8) for stage in range(4)]
    held = [(m.weights / count, m.gradients / count, m.optimizer / count) for m in by_stage]
    assert held == [(6, 4, 8), (2, 6, 1.5), (2, 0.5, 1.5), (0.25, 0.5, 1.5)]
    assert [m.total for m in by_stage] == sorted((m.total for m in by_stage), reverse=True)


def test_an_offloaded_optimizer_stands_in_host_memory() -> None:
    found = estimate_memory(CT_LLM, MemoryLoad("bf16", 4096, 1, False, offloaded=True), 2, 8)
    assert (found.optimizer, found.host) == (0, 1.5 * parameters(CT_LLM))


def test_one_sequence_of_ct_llm_keeps_12_gb_and_3_gb_with_checkpointing() -> None:
    plain = estimate_memory(CT_LLM, LOAD, 1, 8).activations
    assert plain == 4096 * 32 * (16 * 2048 + 2 * 4 * 2048 + 8 * 5504)
    assert plain == pytest.approx(12.2e9, rel=0.01)
    again = estimate_memory(CT_LLM, MemoryLoad("bf16", 4096, 1, True, False), 1, 8).activations
    assert again == 4096 * (32 * 2 * 2048 + (16 * 2048 + 2 * 4 * 2048 + 8 * 5504))


def test_the_most_sequences_fit_and_one_more_does_not() -> None:
    card = 80e9
    for stage in range(4):
        most = most_sequences(CT_LLM, LOAD, stage, 8, card)
        fits, not_any_more = (
            estimate_memory(CT_LLM, MemoryLoad("bf16", 4096, n, False, False), stage, 8).total
            for n in (most, most + 1)
        )
        assert fits <= memory.USABLE_SHARE * card < not_any_more
    assert most_sequences(CT_LLM, LOAD, 0, 1, 24e9) == 0


def test_sizes_of_buckets_and_chunks_are_those_that_training_uses() -> None:
    assert memory.BUCKET_ELEMENTS == deepspeed.BUCKET
    assert head_loss.CHUNK_LOGITS["cuda"] == memory.CHUNK_LOGITS
    assert memory.LEAST_CHUNK == head_loss.LEAST_CHUNK
