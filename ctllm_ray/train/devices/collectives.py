"""What workers must agree on while they train: one small collective for all of it, about once a second.

Whether to save, to stop, which checkpoint is complete, when to ask next: each worker has an opinion or none
(zero), and the largest wins. It costs one all-reduce of four numbers; a lone worker agrees with itself for
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")


def most(numbers: Sequence[int], world: int) -> list[int]:
    """The largest of each number over all workers, equal on all. Waits for the slowest, on a GPU for its work
    too."""
    if world == 1:
        return list(numbers)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    votes = torch.tensor(numbers, dtype=torch.int64, device=device)
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return [int(vote) for vote in votes.tolist()]


def from_first(value: Value, world: int) -> Value:
    """The value that rank 0 gave, on all workers."""
    if world == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
