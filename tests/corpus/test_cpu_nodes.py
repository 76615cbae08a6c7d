"""Work without a GPU stays off GPU nodes: on a real cluster of nodes of both kinds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import ray
from ray.cluster_utils import Cluster

from ctllm_ray import ray_session
from ctllm_ray.base.errors import NoCluster
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus.engine import launch
from tests.corpus.conftest import run_here
from tests.corpus.test_section import digests

Make = Callable[..., Recipe]
LOOK_S = 8  # a small section is done within it where a node takes it


@pytest.fixture
def nodes(no_ray: None) -> Iterator[Cluster]:
    """A head that does no work, and a GPU node with idle CPUs."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    found.add_node(num_cpus=2, num_gpus=1, labels={"ctllm-nodes": "gpu"}, object_store_memory=100 << 20)
    ray.init(address=found.address, log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.mark.cluster
def test_cpu_work_waits_for_a_cpu_node_while_a_gpu_node_is_idle(
    make: Make, nodes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoCluster, match="no node accepts CPU work") as refused:
        pipeline.clean(make())
    assert "resources.cpu_nodes={}" in refused.value.remedy

    monkeypatch.setattr(
        launch, "check_nodes", lambda selector: None
    )  # as where an autoscaler may bring a node
    working = threading.Thread(target=pipeline.clean, args=(make(),))
    working.start()
    time.sleep(LOOK_S)
    assert working.is_alive()
    nodes.add_node(num_cpus=1, object_store_memory=100 << 20)
    working.join(300)
    assert not working.is_alive()
    plain = make("plain")
    pipeline.clean(plain, run_here)
    assert digests(make()) == digests(plain)

    anywhere = make("anywhere", resources={"workers": 2, "object_store_mb": 100, "cpu_nodes": {}})
    pipeline.clean(anywhere)
    assert digests(anywhere) == digests(plain)


@pytest.mark.parametrize(
    ("labels", "selector", "matches"),
    [
        ({}, {"kind": "!gpu"}, True),
        ({"kind": "gpu"}, {"kind": "!gpu"}, False),
        ({"kind": "cpu"}, {"kind": "!gpu"}, True),
        ({}, {"kind": "cpu"}, False),
        ({"kind": "cpu"}, {"kind": "cpu"}, True),
        ({"kind": "b"}, {"kind": "in(a, b)"}, True),
        ({"kind": "b"}, {"kind": "!in(a, b)"}, False),
        ({"kind": "c"}, {"kind": "!in(a, b)"}, True),
        ({"kind": "cpu"}, {"kind": "!gpu", "zone": "1"}, False),
        ({"kind": "gpu"}, {}, True),
    ],
)
def test_labels_match_as_ray_matches_them(
    labels: dict[str, str], selector: dict[str, str], matches: bool
) -> None:
    assert ray_session._matches(labels, selector) == matches
