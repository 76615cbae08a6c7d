"""Small collectives: what workers must agree on during training, about once a second.

Whether to save, to stop, which checkpoint is complete, when to ask next: each worker has an
opinion or none (zero), and the largest wins. It costs one all-reduce of four numbers; a lone
worker agrees with itself for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")


def most(numbers: Sequence[int], world: int) -> list[int]:
    """The maximum of each number over all workers, equal on all. Waits for the
    slowest worker, and for its GPU."""
    if world == 1:
        return list(numbers)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    votes = torch.tensor(numbers, dtype=torch.int64, device=device)
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return [int(vote) for vote in votes.tolist()]


def from_first(value: Value, world: int) -> Value:
    """Rank 0's value, on all workers."""
    if world == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
