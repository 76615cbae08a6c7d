"""Training speed on one GPU, switch by switch: tokens/s, MFU and peak memory of CT-LLM 2B at sequences of
4096.

    python benchmarks/train_gpu.py                                   # all configurations, one after another
    python benchmarks/train_gpu.py --only base no-compile --seconds 20
    python benchmarks/train_gpu.py --size tiny --device cpu          # a dry run anywhere

It needs torch and transformers, and the repository it lies in; Liger, flash-attn and DeepSpeed are used where
they are installed and told missing where not. It runs what training runs (ctllm_ray.model, the chunked loss),
with an optimizer of its own over bf16 weights with fp32 copies, so that neither Ray nor a recipe is needed.

Each configuration is the base with one thing changed, in one process. A step is `--accumulate` micro-batches,
clipping and the update, all of it timed. MFU is in PaLM's convention: 6 x matmul parameters + 12 LHQT FLOPs a
token (14.48 G for CT-LLM at 4096), attention counted whole although it is causal, recomputation not counted.
One JSON line comes after each configuration, so a run that is cut off loses nothing, and a table at the end.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ctllm_ray.model import llama
from ctllm_ray.model.config import SIZES, ModelConfig, flops_per_token, parameters
from ctllm_ray.train.losses import head_loss
from ctllm_ray.train.plan.mfu import device_peak

DOCUMENT_TOKENS = 600  # mean length where documents are kept apart: about that of a Chinese web page
WARMUP_STEPS = 2


@dataclass(frozen=True)
class Switches:
    """One configuration."""

    name: str = "base"
    attention: str = "sdpa"
    compile: bool = True
    loss: str = "chunked"  # plain | chunked | liger
    micro_sequences: int = 4
    checkpointing: bool = False
    documents: bool = False  # kept apart
    adam: str = "fused"  # fused | foreach
    weights: str = "bf16"  # with fp32 copies; autocast: fp32 alone
    engine: str = "torch"  # deepspeed: ZeRO 1


BASE = Switches()
CONFIGURATIONS = (
    BASE,
    replace(BASE, name="documents apart", documents=True),
    replace(BASE, name="no compile", compile=False),
    replace(BASE, name="plain loss", loss="plain", micro_sequences=2),
    replace(BASE, name="base, micro 2", micro_sequences=2),
    replace(BASE, name="Liger loss", loss="liger"),
    replace(BASE, name="flash-attn 2", attention="flash_attention_2"),
    replace(BASE, name="flash-attn 2, documents apart", attention="flash_attention_2", documents=True),
    replace(BASE, name="FlashAttention 3", attention="flash_attention_3"),
    replace(BASE, name="FlashAttention 3, documents apart", attention="flash_attention_3", documents=True),
    replace(BASE, name="autocast over fp32", weights="autocast"),
    replace(BASE, name="foreach AdamW", adam="foreach"),
    replace(BASE, name="checkpointing", checkpointing=True),
    replace(BASE, name="checkpointing, micro 16", checkpointing=True, micro_sequences=16),
    replace(BASE, name="base, micro 1", micro_sequences=1),
    replace(BASE, name="base, micro 8", micro_sequences=8),
    replace(BASE, name="eager attention", attention="eager", micro_sequences=1),
    replace(BASE, name="DeepSpeed ZeRO 1", engine="deepspeed"),
    replace(BASE, name="nothing on", compile=False, loss="plain", adam="foreach", micro_sequences=1),
)


@dataclass
class Rows:
    """A batch as train/data/batch.py has it, which needs no import here."""

    input_ids: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    documents: np.ndarray
    references: np.ndarray


def rows(switches: Switches, config: ModelConfig, tokens: int, seed: int) -> Rows:
    """Random ids; where documents are kept apart, pieces of random length."""
    rng = np.random.default_rng(seed)
    shape = (switches.micro_sequences, tokens)
    ids = rng.integers(4, config.vocab_size, shape)
    documents, positions = np.zeros(shape, np.int32), np.tile(np.arange(tokens), (shape[0], 1))
    if switches.documents:
        documents = np.cumsum(
            rng.random(shape) < 1 / min(DOCUMENT_TOKENS, tokens // 4), axis=1, dtype=np.int32
        )
        for number, row in enumerate(documents):
            starts = np.flatnonzero(np.diff(row, prepend=-1))
            positions[number] -= np.repeat(starts, np.diff(starts, append=tokens))
    return Rows(ids, np.roll(ids, -1, axis=1), positions, documents, np.empty((0, 0), np.float32))


def nats(switches: Switches, model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum of the loss of a micro-batch."""
    hidden = llama.forward_hidden(model, batch)
    if switches.loss == "plain":
        logits = model.lm_head(hidden).flatten(0, 1).float()
        return torch.nn.functional.cross_entropy(logits, batch["labels"].flatten(), reduction="sum")
    function = head_loss.fused_nats if switches.loss == "liger" else head_loss.nats
    return function(hidden, model.lm_head.weight, batch["labels"])


def model_of(switches: Switches, config: ModelConfig, device: torch.device) -> Any:
    """A model with random weights, made on the device."""
    model = llama.empty(config, attention=switches.attention, device=str(device))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0) if name.endswith("norm.weight") else parameter.normal_(0, config.init_std)
    model.train()
    if switches.weights == "bf16" and device.type == "cuda":
        model.to(torch.bfloat16)
    if switches.checkpointing:
        llama.checkpoint_activations(model)
    if switches.compile:
        llama.compile_blocks(model)
    return model


class TorchEngine:
    """Gradients are summed in fp32; AdamW works on the fp32 weights, which are copied back where the model
    has bf16."""

    def __init__(self, switches: Switches, config: ModelConfig, device: torch.device) -> None:
        self.model = model_of(switches, config, device)
        self._own = list(self.model.parameters())
        halves = switches.weights == "bf16" and device.type == "cuda"
        self._masters = [p.detach().float() for p in self._own] if halves else self._own
        for own, master in zip(self._own, self._masters, strict=True):
            master.grad = torch.zeros_like(master)
            if halves:
                own.register_post_accumulate_grad_hook(_adder(master))
        kind = {"fused": True} if switches.adam == "fused" else {"foreach": True}
        self._adam = torch.optim.AdamW(self._masters, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, **kind)
        self._autocast = switches.weights == "autocast" and device.type == "cuda"

    def micro(self, switches: Switches, batch: dict[str, torch.Tensor], targets: int) -> None:
        """Forward and backward of a micro-batch."""
        with torch.autocast("cuda", torch.bfloat16) if self._autocast else nullcontext():
            loss = nats(switches, self.model, batch) / targets
        loss.backward()

    def update(self) -> None:
        """Clipping, AdamW, and the weights back to bf16."""
        torch.nn.utils.clip_grad_norm_(self._masters, 1.0, foreach=True)
        self._adam.step()
        self._adam.zero_grad(set_to_none=False)
        if self._masters[0] is not self._own[0]:
            with torch.no_grad():
                torch._foreach_copy_(self._own, self._masters)


def _adder(master: torch.Tensor) -> Callable[[torch.Tensor], None]:
    def add(parameter: torch.Tensor) -> None:
        assert master.grad is not None
        assert parameter.grad is not None
        master.grad.add_(parameter.grad)
        parameter.grad = None

    return add


class DeepSpeedEngine:
    """ZeRO 1 with the settings of ctllm_ray/train/steppers/deepspeed.py; on one GPU it shows DeepSpeed's own
    cost."""

    def __init__(
        self, switches: Switches, config: ModelConfig, device: torch.device, accumulate: int
    ) -> None:
        for name, value in {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
        }.items():
            os.environ.setdefault(name, value)
        os.environ.setdefault("MASTER_PORT", str(20_000 + os.getpid() % 20_000))
        if device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        import deepspeed

        deepspeed.init_distributed(verbose=False)
        self.model = model_of(replace(switches, weights="autocast"), config, device)
        adam = torch.optim.AdamW(
            self.model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )
        settings: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": switches.micro_sequences,
            "gradient_accumulation_steps": accumulate,
            "gradient_clipping": 1.0,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": 1},
        }
        if device.type == "cuda":
            settings |= {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
        self._engine, *_ = deepspeed.initialize(model=self.model, optimizer=adam, config=settings)
        self._accumulate = accumulate

    def micro(self, switches: Switches, batch: dict[str, torch.Tensor], targets: int) -> None:
        """Forward and backward; the engine divides by the number of micro-batches, which is taken back
        here."""
        self._engine.backward(nats(switches, self._engine.module, batch) / targets * self._accumulate)
        self._engine.step()

    def update(self) -> None:
        """Done by the last micro-batch."""


def measure(switches: Switches, config: ModelConfig, options: argparse.Namespace) -> dict[str, Any]:
    """What one configuration does. Raises what it fails with."""
    device = torch.device(options.device)
    engine: Any
    if switches.engine == "deepspeed":
        engine = DeepSpeedEngine(switches, config, device, options.accumulate)
    else:
        engine = TorchEngine(switches, config, device)
    batches = _endless(switches, config, options.tokens)
    targets = options.accumulate * switches.micro_sequences * options.tokens
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    for _ in range(WARMUP_STEPS):
        _step(engine, switches, batches, targets, options)
    _wait(device)
    warmed = time.perf_counter()
    steps = 0
    while steps < 2 or time.perf_counter() - warmed < options.seconds:
        _step(engine, switches, batches, targets, options)
        _wait(device)
        steps += 1
    seconds = time.perf_counter() - warmed
    speed = steps * targets / seconds
    return {
        "tokens_per_s": round(speed, 1),
        "mfu": round(speed * flops_per_token(config, options.tokens) / options.peak, 4),
        "step_s": round(seconds / steps, 4),
        "steps": steps,
        "warmup_s": round(warmed - began, 1),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if device.type == "cuda" else None,
    }


def _endless(switches: Switches, config: ModelConfig, tokens: int) -> Iterator[Rows]:
    """A few batches over and over: making random ids is no part of training."""
    made = [rows(switches, config, tokens, seed) for seed in range(4)]
    while True:
        yield from made


def _step(
    engine: Any, switches: Switches, batches: Iterator[Rows], targets: int, options: argparse.Namespace
) -> None:
    for _ in range(options.accumulate):
        engine.micro(switches, llama.tensors(next(batches), torch.device(options.device)), targets)
    engine.update()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def attempt(switches: Switches, config: ModelConfig, options: argparse.Namespace) -> dict[str, Any]:
    """The result of a configuration, or why there is none. What it leaves behind is cleared away."""
    try:
        result = measure(switches, config, options)
    except torch.OutOfMemoryError:
        result = {"failed": "out of memory"}
    except Exception as error:  # whatever a kernel or a package raises: the other configurations go on
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        result = {"failed": f"{type(error).__name__}: {first[:160]}"}
    gc.collect()
    torch._dynamo.reset()
    if switches.attention == "flash_attention_3":
        with suppress(Exception):  # where it never started
            torch.nn.attention.restore_flash_attention_impl()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return asdict(switches) | result


def table(results: list[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = ["| configuration | micro | tokens/s | MFU | peak memory | step |", "|---|---|---|---|---|---|"]
    for result in results:
        start = f"| {result['name']} | {result['micro_sequences']} |"
        if "failed" in result:
            lines.append(f"{start} {result['failed']} | | | |")
            continue
        memory = f"{result['peak_gb']:.1f} GB" if result["peak_gb"] is not None else ""
        speed, share, step = result["tokens_per_s"], result["mfu"], result["step_s"]
        lines.append(f"{start} {speed:,.0f} | {share:.1%} | {memory} | {step:.3f} s |")
    return "\n".join(lines)


def main() -> None:
    """Runs the configurations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="ct_llm_2b", choices=list(SIZES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, default=0, help="of a sequence; 0: the size's context")
    parser.add_argument("--accumulate", type=int, default=4, help="micro-batches of a step")
    parser.add_argument("--seconds", type=float, default=12.0, help="timed, of each configuration")
    parser.add_argument(
        "--only", nargs="*", default=[], help="configurations by name; - may stand for blanks"
    )
    parser.add_argument("--out", default="", help="a file that gets the JSON lines too")
    options = parser.parse_args()
    config = SIZES[options.size]
    options.tokens = options.tokens or config.context_tokens
    options.peak = device_peak(torch.device(options.device))
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    print(
        f"{options.size}: {parameters(config):,} parameters, {options.tokens} tokens a sequence, "
        f"{flops_per_token(config, options.tokens) / 1e9:.2f} GFLOP a token (PaLM: 6 x matmul parameters + "
        f"12 LHQT)\n"
        f"{name}, peak {options.peak / 1e12:.3g} TFLOP/s, torch {torch.__version__}, "
        f"{options.accumulate} micro-batches a step",
        flush=True,
    )
    wanted = {given.replace("-", " ") for given in options.only}
    results = []
    for switches in CONFIGURATIONS:
        if wanted and switches.name.replace("-", " ") not in wanted:
            continue
        results.append(attempt(switches, config, options))
        line = json.dumps(results[-1])
        print(line, flush=True)
        if options.out:
            with Path(options.out).open("a") as stream:
                stream.write(line + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
