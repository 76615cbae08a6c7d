"""Llama models by transformers' implementation: built from
a shape and a seed, loaded from a folder, run on rows.

Shapes: B sequences, T positions, D width.

Initial weights are a function of (seed, parameter name) and nothing else: not of the device, the order in
which layers are made, or the version of transformers. Normal with standard deviation `init_std`; the two
projections that write to the residual stream divide it by the root of twice the layers, as GPT-2 did and as
Megatron does by default, on which CT-LLM was trained. Models are fp32 on the CPU: what a stepper does with
them is its affair.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.utils import logging

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.model.attention import NAME, has_pieces, piece_ends, piece_mask
from ctllm_ray.model.config import ModelConfig, of_folder, to_hugging_face

#: Values of `resources.train.attention`, and the names in transformers.
ATTENTIONS = {
    "sdpa": NAME,
    "flash_attention_3": NAME,  # the same calls with FlashAttention 3 underneath
    "flash_attention_2": "flash_attention_2",
    "eager": "eager",
}

#: Projections into the residual stream.
_RESIDUAL = ("o_proj.weight", "down_proj.weight")


class ModelRows(Protocol):
    """A batch as numpy arrays [B, T]; implemented in train/data/batch.py."""

    @property
    def input_ids(self) -> np.ndarray: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def positions(self) -> np.ndarray: ...
    @property
    def documents(self) -> np.ndarray: ...
    @property
    def references(self) -> np.ndarray: ...


def build(config: ModelConfig, seed: int, *, attention: str = "sdpa") -> LlamaForCausalLM:
    """A new model in fp32 on the CPU. Same shape and seed give the same bytes."""
    model = empty(config, attention=attention)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(initial(name, parameter.shape, config, seed))
    return model


def empty(config: ModelConfig, *, attention: str = "sdpa", device: str = "cpu") -> LlamaForCausalLM:
    """A model with unset weights. On the `meta` device it takes no memory."""
    plain = LlamaConfig(**to_hugging_face(config), bos_token_id=None, eos_token_id=None)
    with torch.device("meta"):
        model = LlamaForCausalLM(plain)
    if device != "meta":
        model.to_empty(device=device)
        model.tie_weights()  # to_empty gives tied matrices separate memory
        model.model.rotary_emb = ExactRotary(plain).to(
            device
        )  # its frequencies are not parameters, so to_empty left them unset
    return set_attention(model, attention)


class ExactRotary(LlamaRotaryEmbedding):
    """RoPE whose frequencies stay fp32 when the model is cast to bf16.

    A cast takes buffers too, and rounds the frequencies by up to 0.4 %: at position 4096 that turns a query
    by many radians. The model would learn with these, and be exported with others.
    """

    def _apply(self, fn: Callable, recurse: bool = True) -> ExactRotary:
        exact = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, moved in dict(self.named_buffers(recurse=False)).items():
            if moved.dtype != exact[name].dtype:
                self.register_buffer(name, exact[name].to(moved.device), persistent=False)
        return self


def initial(name: str, shape: torch.Size, config: ModelConfig, seed: int) -> torch.Tensor:
    """The initial fp32 weights of a parameter: norms one, biases zero, matrices normal."""
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    if name.endswith(".bias"):
        return torch.zeros(shape)
    scale = 1 / math.sqrt(2 * config.layers) if name.endswith(_RESIDUAL) else 1.0
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    return torch.empty(shape).normal_(0.0, config.init_std * scale, generator=generator)


def load(folder: str, *, attention: str = "sdpa") -> LlamaForCausalLM:
    """Loads a Hugging Face Llama folder, local or remote, in fp32 on the CPU,
    whatever type its files have."""
    of_folder(folder)  # reports a wrong model before any weight is read
    with tempfile.TemporaryDirectory() as copy:
        local = _fetch_folder(folder, copy) if storage.is_remote(folder) else folder.removeprefix("file://")
        try:
            with _without_progress_bar():
                loaded: Any = LlamaForCausalLM.from_pretrained(
                    local, dtype=torch.float32, output_loading_info=True
                )
        except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
            what = f"the model cannot be loaded: {' '.join(str(error).split())}"
            raise InputError(what, where=folder, remedy="restore the folder from its source") from error
    model, loading_info = cast(tuple[LlamaForCausalLM, dict[str, Any]], loaded)
    if missing := sorted(loading_info["missing_keys"]):  # transformers would fill them with random numbers
        what = f"{len(missing)} weights are missing, for example {missing[0]}"
        raise InputError(what, where=folder, remedy="restore the folder from its source")
    model.model.rotary_emb = ExactRotary(model.config)
    return set_attention(model, attention)


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """transformers draws one bar for each model that is loaded, also into logs."""
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def _fetch_folder(folder: str, copy: str) -> str:
    for name in storage.list_names(folder):
        with storage.reading(storage.join(folder, name)) as stream, (Path(copy) / name).open("wb") as out:
            while block := stream.read(storage.READ_AHEAD_BYTES):
                out.write(block)
    return copy


def set_attention(model: LlamaForCausalLM, attention: str) -> LlamaForCausalLM:
    """Sets another attention. Raises `RecipeError` if its package is not installed."""
    try:
        if attention == "flash_attention_3":
            torch.nn.attention.activate_flash_attention_impl("FA3")
        model.set_attn_implementation(ATTENTIONS[attention])
    except (ImportError, RuntimeError, ValueError) as error:
        raise RecipeError(
            f"attention {attention} cannot be used: {error}",
            where="resources.train.attention",
            remedy="set resources.train.attention=sdpa; it needs no extra package",
        ) from error
    return model


def tensors(rows: ModelRows, device: torch.device) -> dict[str, torch.Tensor]:
    """Rows as tensors on a device. Pieces are counted on the host, so that nothing waits for the device."""
    arrays = {"input_ids": rows.input_ids, "labels": rows.labels, "positions": rows.positions}
    batch = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    documents_BT = torch.from_numpy(np.ascontiguousarray(rows.documents))
    if has_pieces(documents_BT):
        batch["documents"] = documents_BT
        batch["piece_ends"] = piece_ends(documents_BT)
    if rows.references.size:
        batch["references"] = torch.from_numpy(rows.references)
    if device.type == "cuda":
        return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in batch.items()}
    return {name: tensor.to(device) for name, tensor in batch.items()}


def forward_hidden(model: LlamaForCausalLM, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Hidden states [B, T, D] after the last norm; `model.lm_head` turns them into logits.

    The batch has `input_ids` and may have `positions` and, where documents are kept apart, `documents`;
    `piece_ends` beside them saves a GPU the look for their ends.
    """
    ids_BT = batch["input_ids"]
    positions_BT = batch.get("positions")
    kind = model.config._attn_implementation
    pieces = _pieces(model, batch, kind)
    if "cu_seq_lens_q" in pieces:  # flash_attention_2 takes the rows as one
        ids_BT, positions_BT = (
            ids_BT.reshape(1, -1),
            positions_BT.reshape(1, -1) if positions_BT is not None else None,
        )
    hidden = model.model(
        input_ids=ids_BT, position_ids=positions_BT, use_cache=False, **pieces
    ).last_hidden_state
    return hidden.view(*batch["input_ids"].shape, -1)


def _pieces(model: LlamaForCausalLM, batch: Mapping[str, torch.Tensor], kind: str) -> dict[str, Any]:
    """Attention arguments that keep documents apart; empty if each row is one piece."""
    documents_BT, ends = batch.get("documents"), batch.get("piece_ends")
    if documents_BT is None or (ends is None and not has_pieces(documents_BT)):
        return {}
    ours_on_cpu = kind == NAME and documents_BT.device.type == "cpu"
    if kind == "eager" or not (ours_on_cpu or (documents_BT.is_cuda and _half(model))):
        mask = piece_mask(documents_BT)
        return {
            "attention_mask": mask
            if kind != "eager"
            else torch.where(mask, 0.0, torch.finfo(torch.float32).min)
        }
    ends = piece_ends(documents_BT) if ends is None else ends
    if kind == NAME:
        return {"piece_ends": ends}
    longest = documents_BT.shape[1]
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}


def _half(model: LlamaForCausalLM) -> bool:
    """True if attention runs in bf16 or fp16, as flash kernels require."""
    return model.lm_head.weight.dtype != torch.float32 or torch.is_autocast_enabled("cuda")


def compile_blocks(model: LlamaForCausalLM) -> None:
    """Compiles each block alone: all layers share one
    compilation, and the first step waits for one block only."""
    for block in model.model.layers:
        block.compile()


def checkpoint_activations(model: LlamaForCausalLM) -> None:
    """Enables activation checkpointing: blocks keep their input only and recompute the
    rest in the backward pass."""
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
