"""The plain PyTorch stepper: AdamW, data-parallel by summed gradients, on a CPU or one GPU per worker.

All gradients live in a few flat fp32 buffers that parameters' `.grad` are views of, so that adding them over
the workers, their norm and clipping are a handful of large operations. The buffers are added up over the
workers (gloo, NCCL) while the last micro-batch is still going backward. There is no averaging: each loss is
divided by the number of targets (or pairs) of the whole global batch, so the sum over workers is the true
mean whatever the padding.

bf16 is autocast over fp32 weights. Costs over the bare model: zeroing and one more read of the gradients,
below 1 % of a step on a CPU at 10 M parameters. Every buffer view begins at a multiple of 64 bytes: matrix
products then take the same path in every run, which keeps resumed runs equal to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist

from ctllm_ray.base.recipe_training import Optimizer, Train, TrainResources
from ctllm_ray.model import llama
from ctllm_ray.train.data.batch import Batch
from ctllm_ray.train.stepper import Loss

BUCKET_ELEMENTS = (
    1 << 24
)  # 64 MB in fp32: large enough for any link, small enough to start before backward ends
ALIGNED_ELEMENTS = 16  # 64 bytes in fp32
NORM_ELEMENTS = 1 << 16  # elements per partial norm: one norm over 16 M in fp32 is off by 7e-4 on a CPU
MOMENTS = ("exp_avg", "exp_avg_sq")


class TorchStepper:
    """One worker. With several, `torch.distributed` must be initialized before."""

    kind, zero_stage = "torch", 0

    def __init__(
        self,
        model: torch.nn.Module,
        loss: Loss,
        train: Train,
        resources: TrainResources,
        rank: int,
        world: int,
    ) -> None:
        self.rank, self.world = rank, world
        self._device = torch.device("cuda" if resources.gpu else "cpu")
        whole: Any = model.to(self._device).train()
        self.module: torch.nn.Module = whole
        if resources.activation_checkpointing:
            llama.checkpoint_activations(whole)
        if resources.compile:
            llama.compile_blocks(whole)
        self._loss, self._bf16, self._clip_norm = loss, train.precision == "bf16", train.optimizer.clip_norm
        self._parameters = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        self._gradients = _Gradients(list(self._parameters.values()))
        groups = parameter_groups(self._parameters.values(), train.optimizer)
        self._adam = torch.optim.AdamW(
            groups, lr=0.0, betas=train.optimizer.betas, eps=train.optimizer.epsilon, fused=True
        )
        for parameter in self._parameters.values():
            self._adam.state[parameter] = _no_moments(parameter)

    def backward(self, micro_batches: Iterable[Batch], divisor: int) -> torch.Tensor:
        """The divided sums over the global batch, loss first. Gradients stay, summed over the workers."""
        batches = list(micro_batches)
        total = torch.zeros((), device=self._device)
        self._gradients.clear()
        for index, batch in enumerate(batches):
            tensors = llama.tensors(batch, self._device)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
                sums = self._loss(self.module, tensors) / divisor
            total = total + sums.detach()
            if self.world > 1 and index == len(batches) - 1:
                self._gradients.add_up_as_they_come()
            sums[0].backward()
        self._gradients.wait()
        if self.world > 1:
            dist.all_reduce(total)
        return total

    def apply(self, rate: float) -> torch.Tensor:
        """The gradient norm before clipping; if it is not finite, there was no update.
        Never waits for the device."""
        norm = self._gradients.clip(self._clip_norm)
        # torch's loss scaler uses the same way to make the fused kernel skip the update
        setattr(self._adam, "found_inf", (~norm.isfinite()).to(torch.float32))  # noqa: B010
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        return norm

    def discard(self) -> None:
        """Zeroes the gradients."""
        self._gradients.clear()

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All workers hold the full state; each copies its part of the parameters, balanced by size."""
        mine = [name for name, rank in owners(self._parameters, self.world).items() if rank == self.rank]
        copies = []
        for name in mine:
            parameter = self._parameters[name]
            copies.append((f"model.{name}", host_copy(parameter.detach())))
            copies += [
                (f"{moment}.{name}", host_copy(self._adam.state[parameter][moment])) for moment in MOMENTS
            ]
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        yield from copies

    def load(self, tensor: Callable[[str], torch.Tensor], updates: int) -> None:
        """Overwrites weights and moments in place."""
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(tensor(f"model.{name}"))
                state = self._adam.state[parameter]
                state["step"].fill_(updates)
                for moment in MOMENTS:
                    state[moment].copy_(tensor(f"{moment}.{name}"))
        self._gradients.clear()


def parameter_groups(parameters: Iterable[torch.nn.Parameter], options: Optimizer) -> list[dict[str, Any]]:
    """Two parameter groups: matrices, with weight decay; norms and biases, without."""
    result = list(parameters)
    return [
        {"params": [p for p in result if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in result if p.ndim < 2], "weight_decay": 0.0},
    ]


def _no_moments(parameter: torch.nn.Parameter) -> dict[str, torch.Tensor]:
    """AdamW's state before the first update."""
    step = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return {"step": step} | {moment: torch.zeros_like(parameter, requires_grad=False) for moment in MOMENTS}


def host_copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in host memory; from a GPU the copy is asynchronous. PyTorch keeps pinned
    memory for the next checkpoint."""
    if not tensor.is_cuda:
        return tensor.clone(memory_format=torch.contiguous_format)
    copy = torch.empty(tensor.shape, dtype=torch.float32, pin_memory=True)
    return copy.copy_(tensor, non_blocking=True)


def owners(parameters: Mapping[str, torch.Tensor], world: int) -> dict[str, int]:
    """The rank that saves each parameter: largest first, each to the rank with least so far."""
    result, loads = {}, [0] * world
    for name in sorted(parameters, key=lambda n: (-parameters[n].numel(), n)):
        result[name] = loads.index(min(loads))
        loads[result[name]] += parameters[name].numel()
    return result


open_stepper = TorchStepper


def reason_not_to_start(resources: TrainResources) -> str:
    """Why this stepper cannot run with these resources; empty if it can."""
    return "only DeepSpeed supports offloading" if resources.offload else ""


class _Gradients:
    """Flat buffers, in the order in which backward fills them: from last parameter to first."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        groups = _group_parameters(list(reversed(parameters)))
        self._buckets, self._sizes = [_flat(group) for group in groups], [len(group) for group in groups]
        self._waiting: list[int] = []  # per bucket: parameters without a gradient so far
        self._sent: list[dist.Work] = []
        for index, group in enumerate(groups):
            for parameter in group:
                parameter.register_post_accumulate_grad_hook(lambda _, bucket=index: self._came(bucket))

    def clear(self) -> None:
        """Zeroes all gradients."""
        for bucket in self._buckets:
            bucket.zero_()

    def add_up_as_they_come(self) -> None:
        """From now on, each full bucket is summed over the workers. Call before the last micro-batch."""
        self._waiting = list(self._sizes)

    def _came(self, bucket: int) -> None:
        if self._waiting:
            self._waiting[bucket] -= 1
            while len(self._sent) < len(self._waiting) and not self._waiting[len(self._sent)]:
                self._send()

    def _send(self) -> None:
        """Sends buckets in one order on all workers; else their sums would mix."""
        work = dist.all_reduce(self._buckets[len(self._sent)], async_op=True)
        assert work is not None
        self._sent.append(work)

    def wait(self) -> None:
        """Waits until all buckets are summed, including those without a gradient."""
        while self._waiting and len(self._sent) < len(self._buckets):
            self._send()
        for work in self._sent:
            work.wait()
        self._waiting, self._sent = [], []

    def clip(self, most: float) -> torch.Tensor:
        """The global gradient norm. Scales the gradients down to `most` if it is larger."""
        parts = [part for bucket in self._buckets for part in bucket.split(NORM_ELEMENTS)]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in parts]))
        scale = (most / (norm + 1e-6)).clamp(max=1.0)
        for bucket in self._buckets:
            bucket.mul_(scale)
        return norm


def _group_parameters(parameters: list[torch.nn.Parameter]) -> list[list[torch.nn.Parameter]]:
    """Groups neighbours up to the size of a bucket; a larger parameter has its own bucket."""
    groups: list[list[torch.nn.Parameter]] = [[]]
    for parameter in parameters:
        if groups[-1] and sum(map(_room, groups[-1])) + _room(parameter) > BUCKET_ELEMENTS:
            groups.append([])
        groups[-1].append(parameter)
    return groups


def _room(parameter: torch.Tensor) -> int:
    """Elements that a parameter occupies in a buffer."""
    return -(-parameter.numel() // ALIGNED_ELEMENTS) * ALIGNED_ELEMENTS


def _flat(parameters: list[torch.nn.Parameter]) -> torch.Tensor:
    """A zeroed buffer; the parameters' gradients are views of it."""
    flat = torch.zeros(sum(map(_room, parameters)), dtype=torch.float32, device=parameters[0].device)
    first = 0
    for parameter in parameters:
        parameter.grad = flat[first : first + parameter.numel()].view_as(parameter)
        first += _room(parameter)
    return flat
