"""Ray's `TorchTrainer` with changes that its public options do not offer. Uses internals of Ray Train 2.60.

The elastic policy takes only numbers of workers that divide the batch, and counts no node that is about to
go: Ray would wait there for workers until the start times out. And no actor is started for data sets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.preemption import _get_draining_nodes
from ray.train.v2._internal.execution.scaling_policy import ScalingDecision
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.api.result import Result
from ray.train.v2.torch.torch_trainer import TorchTrainer


class Trainer(TorchTrainer):
    """A `TorchTrainer` without data sets, whose elastic groups have only worker
    numbers that divide a batch."""

    def __init__(self, work: Callable[[dict], dict], *, sequences: int, **options: Any) -> None:
        super().__init__(work, **options)
        self._sequences = sequences

    def _create_default_callbacks(self) -> list[Any]:
        """Ray's default callbacks without the actor for Ray Data sets
        (a process that takes seconds to start): there are none."""
        result = super()._create_default_callbacks()
        return [callback for callback in result if not isinstance(callback, DatasetsCallback)] + [
            _NoDatasets()
        ]

    def _initialize_and_run_controller(self, **options: Any) -> Result:
        if isinstance(options["scaling_policy"], ElasticScalingPolicy):
            scaling = cast(ScalingConfig, self.scaling_config)
            options["scaling_policy"] = Dividing(scaling, self._sequences, _get_draining_nodes)
        return cast(Result, super()._initialize_and_run_controller(**options))


class _NoDatasets(WorkerGroupCallback):
    """Tells the workers that there are no data sets."""

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        """One entry per worker."""
        return {"dataset_shard_provider": [None] * len(workers)}


class Dividing(ElasticScalingPolicy):
    """Chooses as many available workers as divide the sequences of a batch.

    A new group uses no node that is about to be taken away. A group that already runs there is left alone: it
    was notified, saves and ends by itself, and a resize would prevent that.
    """

    def __init__(
        self, scaling_config: ScalingConfig, sequences: int, leaving: Callable[[], dict[str, int]]
    ) -> None:
        super().__init__(scaling_config)
        self._sequences, self._leaving, self._avoided = sequences, leaving, frozenset[str]()

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """The number of workers to start."""
        self._avoided = frozenset(self._leaving())
        try:
            return super().make_decision_for_non_running_worker_group()
        finally:
            self._avoided = frozenset()

    def _count_possible_workers(self, reserved_resources: Any) -> int:
        staying = {
            node: resources for node, resources in reserved_resources.items() if node not in self._avoided
        }
        room = super()._count_possible_workers(staying)
        return max((n for n in range(1, room + 1) if self._sequences % n == 0), default=0)
