"""Where a run stands: all that is not tensors. Saving it at step k and going on equals never stopping."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class RunState:
    """`batch` is the cursor in the order of the data; it runs ahead of `step` by the batches that were passed over."""

    step: int = 0  # optimizer updates done
    batch: int = 0  # global batches consumed or passed over: the next one has this number
    tokens: int = 0  # positions of consumed batches: what schedules and phases count
    targets: int = 0  # tokens trained, padding not counted
    passed_over: tuple[int, ...] = ()  # numbers of batches whose update was skipped
    world: int = 1  # workers that saved it
    stepper: str = "torch"
    zero_stage: int = 0
    seed: int = 0
    data: str = ""  # fingerprint of the shards that the run has been given so far (train/corpora.py)
    recipe: dict[str, Any] = field(default_factory=dict)  # decisions of the train section
    lineage: dict[str, str] = field(default_factory=dict)  # code commit, package versions, parent checkpoint
    recent_losses: tuple[float, ...] = ()  # window of the spike detector, nats per token

    def plain(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> RunState:
        """The state that `plain` described."""
        state = RunState(**plain)
        return replace(state, passed_over=tuple(state.passed_over), recent_losses=tuple(state.recent_losses))
