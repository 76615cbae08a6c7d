"""Routes a request to the replica that has its prompt prefix cached, unless that one is much busier.

Prompts with the same beginning (a system prompt, a continued conversation, the few-shot examples of an
evaluation) go to the same replica by rendezvous hashing of their first `PREFIX_IDS` ids. Every ingress makes
the same choice without communication, nothing is stored, and a replica that starts or stops moves only its
own share. Ray's router for this asks one actor that holds all recent texts; here a choice costs microseconds.
"""

from __future__ import annotations

from array import array

import xxhash
from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica

from ctllm_ray.serving.ray import (
    model_replaced,  # by its module: Ray Serve gives the router a copy of this module's globals
)

PREFIX_IDS = 64  # fewer save little; many more would separate prompts that differ late
MOST_AHEAD = 8  # requests that the chosen replica may have more than the least busy one


class PrefixRouter(FIFOMixin, RequestRouter):
    """Ranks replicas for a request: first the one of its prefix, then all others."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The replica of the prefix before the others; all as equals if it is too busy."""
        names = [replica.replica_id.unique_id for replica in candidate_replicas]
        candidates = [candidate_replicas[at] for at in model_replaced.find_serving(names)]
        free = self.select_available_replicas(candidates) or candidates  # the known loads may be old
        if pending_request is None or not pending_request.args or len(free) < 2:
            return [free]
        names = [replica.replica_id.unique_id for replica in free]
        chosen = free[of_prefix(pending_request.args[0], names)]
        queues = {r.replica_id: self.replica_queue_len_cache.get(r.replica_id) or 0 for r in free}
        if queues[chosen.replica_id] - min(queues.values()) > MOST_AHEAD:
            return [free]
        return [[chosen], [replica for replica in free if replica is not chosen]]


def of_prefix(ids: list[int], replicas: list[str]) -> int:
    """The index of the replica for prompts with this prefix."""
    prefix = array("I", ids[:PREFIX_IDS]).tobytes()
    weights = [xxhash.xxh3_64_intdigest(prefix + name.encode()) for name in replicas]
    return weights.index(max(weights))
