"""Which nodes Ray's own autoscaler would start for our work, by its own scheduler; no cloud is asked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.common_pb2 import LabelSelectorOperator

from ctllm_ray.base import recipe as recipes
from tests.conftest import REPOSITORY

LAUNCHER = [REPOSITORY / f"cluster/launcher/{name}.yaml" for name in ("aws", "gcp", "aliyun")]
TASKS = 5000
NOT_IN = LabelSelectorOperator.LABEL_OPERATOR_NOT_IN


def node_types(file: Path) -> dict[str, Any]:
    config = prepare_config(yaml.safe_load(file.read_text(encoding="utf-8")))
    return AutoscalingConfig(configs=config, skip_content_hash=True).get_node_type_configs()


def started(
    kinds: dict[str, Any], bundle: dict[str, float], selector: dict[str, str], most: int = 24
) -> Counter[str]:
    """How many nodes of each kind Ray starts for 5,000 tasks that ask for a bundle under a label selector."""
    terms = (
        [[(key, NOT_IN, [value.removeprefix("!")]) for key, value in selector.items()]] if selector else None
    )
    request = ResourceRequestUtil.make(bundle, label_selectors=terms)
    asked = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=kinds,
        max_num_nodes=most,
        resource_requests=ResourceRequestUtil.group_by_count([request] * TASKS),
    )
    reply = ResourceDemandScheduler().schedule(asked)
    return Counter({launch.instance_type: launch.count for launch in reply.to_launch})


@pytest.fixture(scope="module")
def selector() -> dict[str, str]:
    """That of CPU work in a recipe that says nothing of it."""
    found = recipes.load_recipe(str(REPOSITORY / "jobs/recipes/zh_web.yaml")).resources.label_selector()
    assert all(value.startswith("!") for value in found.values())  # as `started` takes it
    return found


@pytest.mark.parametrize("file", LAUNCHER, ids=lambda file: file.stem)
def test_five_thousand_cpu_tasks_start_every_cpu_node_and_no_gpu_node(
    file: Path, selector: dict[str, str]
) -> None:
    found = started(node_types(file), {"CPU": 1}, selector)
    assert found["cpu"] == 16
    assert found["gpu"] == 0
    assert (
        started(node_types(file), {"CPU": 1}, {})["gpu"] > 0
    )  # as it was, and as `resources.cpu_nodes={}` has it


@pytest.mark.parametrize("file", LAUNCHER, ids=lambda file: file.stem)
def test_work_with_gpus_starts_gpu_nodes(file: Path) -> None:
    recipe = recipes.load_recipe(str(REPOSITORY / "jobs/recipes/zh_web.yaml"))
    assert (
        started(node_types(file), {"CPU": 1, "GPU": 1}, recipe.resources.label_selector(gpus=1))["gpu"] == 8
    )


@pytest.mark.parametrize("name", ["raycluster", "rayjob-train"])
def test_kuberay_starts_no_gpu_node_for_cpu_tasks_either(name: str, selector: dict[str, str]) -> None:
    resource = yaml.safe_load((REPOSITORY / f"cluster/kuberay/{name}.yaml").read_text(encoding="utf-8"))
    resource = resource | {"spec": resource["spec"].get("rayClusterSpec", resource["spec"])}
    resource["metadata"]["namespace"] = "default"
    config = _derive_autoscaling_config_from_ray_cr(resource)
    least = {group["groupName"]: group["minReplicas"] for group in resource["spec"]["workerGroupSpecs"]}
    kinds = AutoscalingConfig(configs=config, skip_content_hash=True).get_node_type_configs()
    found = started(kinds, {"CPU": 1}, selector)
    assert found["cpu"] == kinds["cpu"].max_worker_nodes
    assert found["gpu"] == least["gpu"]
    assert started(kinds, {"CPU": 1}, {})["gpu"] > least["gpu"]


@pytest.mark.parametrize("file", LAUNCHER, ids=lambda file: file.stem)
def test_the_autoscaler_of_the_launcher_is_the_one_that_knows_labels(file: Path) -> None:
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert (
        "RAY_enable_autoscaler_v2=1 RAY_AUTH_MODE=token ray start --head"
        in config["head_start_ray_commands"][-1]
    )
