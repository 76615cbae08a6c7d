"""The DeepSpeed stepper: ZeRO 0 to 3 with the interface of the plain one, on CPU (gloo) and GPU (NCCL).

Why some things are done by hand: DeepSpeed averages gradients over ranks and knows nothing of padding, so the
loss is scaled by ranks / targets, which makes the average the gradient of the loss per target of the global
batch. The last micro-batch is named to the engine, since how many there are is the caller's matter. The
optimizer is torch's AdamW; DeepSpeed's own one for the CPU is compiled at first use (two minutes) and taken
only for offloading.

State leaves as whole fp32 tensors, not as DeepSpeed's checkpoints, which load at the same number of ranks and
the same stage only. Gathering costs a collective for every tensor of the state: three times the fp32 weights
go over the links.

Written against DeepSpeed 0.19 (`runtime/engine.py`, `runtime/zero/stage_1_and_2.py`,
`runtime/zero/stage3.py`, `runtime/bf16_optimizer.py`): of these `discard` and `load` use
what is no public interface.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe_training import Optimizer, Train, TrainResources
from ctllm_ray.model import llama
from ctllm_ray.train.data.batch import Batch
from ctllm_ray.train.stepper import Loss
from ctllm_ray.train.steppers.torch import MOMENTS, host_copy, owners, parameter_groups

#: Seconds. A lock on an unfinished extension build that is older was left by a dead process; a build takes
#: about 120.
STALE_S = 600
BUCKET = 200_000_000  # maximum elements per gradient collective: 0.8 GB in fp32


class DeepSpeedStepper:
    """One rank under DeepSpeed. With several ranks, `torch.distributed` must be initialized before."""

    kind = "deepspeed"

    def __init__(
        self,
        model: torch.nn.Module,
        loss: Loss,
        train: Train,
        resources: TrainResources,
        rank: int,
        world: int,
    ) -> None:
        if resources.offload and not resources.zero_stage:
            remedy = "set resources.train.zero_stage to 1, 2 or 3, or resources.train.offload=false"
            raise RecipeError("zero_stage 0 has no optimizer state to offload", remedy=remedy)
        deepspeed = _start_deepspeed()
        self.rank, self.world, self.module = rank, world, model
        self.zero_stage, self._clip_norm = resources.zero_stage, train.optimizer.clip_norm
        bf16 = train.precision == "bf16"
        if resources.activation_checkpointing:
            llama.checkpoint_activations(cast(Any, model))
        if resources.compile:
            llama.compile_blocks(cast(Any, model))
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._owners = owners(self._parameters, world)
        with contextlib.redirect_stdout(io.StringIO()):  # some of its reports ignore the log level
            self._engine, *_ = deepspeed.initialize(
                model=_Whole(model.train(), loss, autocast=bf16 and not self.zero_stage),
                optimizer=_optimizer(self._parameters.values(), train.optimizer, resources),
                config=_config(train, resources, [p.numel() for p in self._parameters.values()]),
            )
        self._begin()

    def backward(self, micro_batches: Iterable[Batch], divisor: int) -> torch.Tensor:
        """The divided sums over the global batch, loss first. Gradients stay, reduced over the ranks."""
        device = self._engine.device
        total = torch.zeros((), device=device)
        for batch, is_last in _with_last(micro_batches):
            self._engine.set_gradient_accumulation_boundary(is_last)
            sums = self._engine(llama.tensors(batch, device))
            total = total + sums.detach()
            self._engine.backward(sums[0] * (self.world / divisor))
        dist.all_reduce(total)
        return total / divisor

    def apply(self, rate: float) -> torch.Tensor:
        """The gradient norm before clipping; infinite if a gradient was not
        finite: then there was no update."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        if self.zero_stage:
            self._engine.step()
            return torch.as_tensor(self._engine.get_global_grad_norm(), dtype=torch.float32).detach().clone()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._clip_norm)
        if not torch.isfinite(norm):
            self.discard()
            return torch.full_like(norm, torch.inf)
        self._engine.step()
        return norm

    def discard(self) -> None:
        """Discards the gradients as DeepSpeed does after an overflow."""
        zero = self._engine.optimizer
        if self.zero_stage == 3:
            zero._pre_step()
            zero._partition_all_parameters()
            zero._overflow_clean_up(zero.loss_scale)
        elif hasattr(zero, "averaged_gradients"):
            zero._release_preflattened_grad_buffers()
            zero.averaged_gradients.update(dict.fromkeys(zero.averaged_gradients))
            zero.all_grad_tensors.update(dict.fromkeys(zero.all_grad_tensors))
            zero.micro_step_id = -1
            if zero.cpu_offload:
                zero._offload_accumulated_param_ids = set()
                zero.reset_cpu_buffers()
        zero.zero_grad(set_to_none=True)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Gathered in one order on all ranks, since all take part; each rank copies its own parameters."""
        copies = []
        for name, parameter in self._parameters.items():
            for part in ("model", *MOMENTS):
                whole = self._gather(parameter, part)
                if self._owners[name] == self.rank:
                    copies.append((f"{part}.{name}", host_copy(whole.detach())))
        if self._engine.device.type == "cuda":
            torch.cuda.synchronize()
        yield from copies

    def load(self, tensor: Callable[[str], torch.Tensor], updates: int) -> None:
        """Loads the state; a rank reads only tensors of which it holds a part."""
        self.discard()
        for name, parameter in self._parameters.items():
            if getattr(parameter, "_hp_mapping", parameter) is None:
                continue  # ZeRO 1 and 2: this rank has no part of it; the weights come from ranks that do
            for part in ("model", *MOMENTS):
                self._put(parameter, part, tensor(f"{part}.{name}"))
        for state in self._states():
            state["step"] = _count_like(state["step"], updates)
        self._publish()

    def _begin(self) -> None:
        """Creates zero moments at the start, as AdamW does at
        its first step, so that they can be read and set."""
        zero, adam = self._engine.optimizer, self._adam()
        counter = 0 if type(adam).__name__ == "DeepSpeedCPUAdam" else torch.zeros(())
        for flat in self._masters():
            step = counter.to(flat.device) if adam.defaults.get("fused") else counter  # type: ignore[union-attr]
            moments = {moment: torch.zeros_like(flat, requires_grad=False) for moment in MOMENTS}
            adam.state[flat].update(step=step if isinstance(step, int) else step.clone(), **moments)
        if self.zero_stage in (1, 2):
            zero._lazy_init_hp_params_optimizer_state()

    def _adam(self) -> Any:
        return self._engine.optimizer.optimizer if self.zero_stage else self._engine.optimizer

    def _masters(self) -> list[torch.Tensor]:
        """The fp32 tensors that this rank updates: its flat partitions; without ZeRO the parameters."""
        zero = self._engine.optimizer
        if self.zero_stage == 3:
            return zero.fp32_partitioned_groups_flat
        if self.zero_stage:
            flat = getattr(zero, "single_partition_of_fp32_groups", None)
            return zero.fp32_groups_flat_partition if flat is None else flat
        return list(self._parameters.values())

    def _states(self) -> list[dict[str, Any]]:
        return [self._adam().state[flat] for flat in self._masters()]

    def _gather(self, parameter: torch.nn.Parameter, part: str) -> torch.Tensor:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if not self.zero_stage:
            return parameter if part == "model" else self._adam().state[parameter][part]
        if part == "model":
            return safe_get_full_fp32_param(parameter)
        return safe_get_full_optimizer_state(parameter, part)

    def _put(self, parameter: torch.nn.Parameter, part: str, value: torch.Tensor) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        if not self.zero_stage:
            (parameter if part == "model" else self._adam().state[parameter][part]).data.copy_(value)
        elif part == "model":
            safe_set_full_fp32_param(parameter, value)
        else:
            safe_set_full_optimizer_state(parameter, value, part)

    def _publish(self) -> None:
        """Copies the fp32 weights to those the model computes with, on all ranks."""
        zero = self._engine.optimizer
        if self.zero_stage == 3:
            zero._partition_all_parameters()
            for index in range(len(zero.fp16_groups)):
                zero._reassign_or_swap_out_partitioned_parameters(index)
            zero._post_step(set())
        elif self.zero_stage:
            zero.update_lp_params()
            for index in range(len(getattr(zero, "round_robin_bit16_groups", ()))):
                zero._update_model_bit16_weights(index)


class _Whole(torch.nn.Module):
    """Model and loss as one module: in its forward pass, ZeRO 3 then gathers the model
    weights that the loss uses."""

    def __init__(self, model: torch.nn.Module, loss: Loss, *, autocast: bool) -> None:
        super().__init__()
        self.model = model
        self._loss, self._autocast = loss, autocast

    def forward(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The objective's sums, loss first. Without ZeRO, bf16 is autocast over fp32 weights."""
        with torch.autocast(tensors["input_ids"].device.type, torch.bfloat16, enabled=self._autocast):
            return self._loss(self.model, tensors)


def _optimizer(
    parameters: Iterable[torch.nn.Parameter], options: Optimizer, resources: TrainResources
) -> torch.optim.Optimizer:
    """AdamW with rate zero until `apply` sets it; for offloading DeepSpeed's
    version, compiled at first use."""
    groups = parameter_groups(parameters, options)
    if resources.offload:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        remove_stale_locks()
        return DeepSpeedCPUAdam(groups, lr=0.0, betas=options.betas, eps=options.epsilon, adamw_mode=True)
    return torch.optim.AdamW(groups, lr=0.0, betas=options.betas, eps=options.epsilon, fused=True)


def _config(train: Train, resources: TrainResources, sizes: list[int]) -> dict[str, Any]:
    """DeepSpeed's settings. A bucket holds the largest parameter; otherwise that
    would take another code path."""
    bucket = max(max(sizes), min(BUCKET, sum(sizes)))
    zero: dict[str, Any] = {
        "stage": resources.zero_stage,
        "overlap_comm": resources.gpu,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket + bucket % 2,
    }
    if resources.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": resources.gpu}
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": resources.micro_sequences,
        "gradient_accumulation_steps": 1,  # for DeepSpeed's own counter; the boundary is set by hand here
        "gradient_clipping": train.optimizer.clip_norm if resources.zero_stage else 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": zero,
        "steps_per_print": None,
        "tensorboard": {"enabled": False},
    }
    if train.precision == "bf16" and resources.zero_stage:
        config["bf16"] = {"enabled": True, "check_grad_overflow": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
        config["communication_data_type"] = "fp32"
    return config


def _count_like(step: Any, updates: int) -> Any:
    """Adam's update counter in the optimizer's own form."""
    return torch.full_like(step, updates) if isinstance(step, torch.Tensor) else updates


def _with_last(batches: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
    """Each batch, and whether it is the last one."""
    iterator = iter(batches)
    held = next(iterator)
    for batch in iterator:
        yield held, False
        held = batch
    yield held, True


def _start_deepspeed() -> Any:
    """Imports the package; initializes a process group of one if there is none."""
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # DeepSpeed calls them
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+_tensor` is deprecated")
    import deepspeed

    # At start, DeepSpeed would compile one op: an all-reduce for inference on CPUs, which training never
    # calls (comm/torch.py: inference_all_reduce). An empty list avoids the need for a compiler.
    deepspeed.ops.__compatible_ops__ = {}
    os.environ.setdefault("LOCAL_RANK", "0")  # every launcher sets it; a single rank has none
    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    deepspeed.init_distributed(verbose=False)
    return deepspeed


open_stepper = DeepSpeedStepper


def reason_not_to_start(resources: TrainResources) -> str:
    """Why DeepSpeed cannot run here, and what it needs; empty if it can run.

    Only offloading needs a compiler: the CPU optimizer is built at first use.
    """
    if find_spec("deepspeed") is None:
        return "the package deepspeed is not installed (pip install deepspeed)"
    if not resources.offload:
        return ""
    missing = [
        what
        for what, each in {
            "a C++ compiler (apt-get install g++)": shutil.which(os.environ.get("CXX", "c++"))
            or shutil.which("g++"),
            "ninja (pip install ninja, and its folder on PATH)": shutil.which("ninja"),
            "the headers of Python (apt-get install python3-dev)": _has_python_headers(),
        }.items()
        if not each
    ]
    return (
        f"offloading compiles DeepSpeed's CPU optimizer, which needs {', '.join(missing)}" if missing else ""
    )


def _has_python_headers() -> bool:
    return (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file()


def remove_stale_locks(now_s: float | None = None) -> list[str]:
    """Deletes lock files of killed builds, and returns them: with such a file, later
    builds wait forever silently."""
    home = os.environ.get("TORCH_EXTENSIONS_DIR") or str(Path.home() / ".cache" / "torch_extensions")
    now_s = time.time() if now_s is None else now_s
    stale = [
        lock
        for lock in Path(home).rglob("lock")
        if now_s - lock.stat().st_mtime > STALE_S and not _is_open_somewhere(lock)
    ]
    for lock in stale:
        lock.unlink(missing_ok=True)
    return [str(lock) for lock in stale]


def _is_open_somewhere(path: Path) -> bool:
    """True if a process of this machine has the file open, as torch's builds hold their lock."""
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if descriptor.readlink() == path:
                return True
        except OSError:  # deleted in the meantime, or another user's
            continue
    return False
