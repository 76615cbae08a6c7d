"""cluster/: each file is what its reader takes, a wrong field is refused, and it says what recipes and code
say."""

from __future__ import annotations

import copy
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.serving.ray import proxy
from tests.conftest import REPOSITORY

CLUSTER = REPOSITORY / "cluster"
KUBERAY = sorted((CLUSTER / "kuberay").glob("*.yaml"))
LAUNCHER = sorted((CLUSTER / "launcher").glob("*.yaml"))
DOCKER = sorted((CLUSTER / "docker").glob("*.Dockerfile"))
IMAGE_FOLDER = "/home/ray/ctllm"  # where the images have the repository
SCHEMA = yaml.safe_load(Path(__file__).with_name("kuberay.schema.yaml").read_text(encoding="utf-8"))
FREE = {"labels", "annotations", "rayStartParams"}  # mappings whose keys are the user's

Place = tuple[Any, ...]


def read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def cluster_spec(resource: dict[str, Any]) -> dict[str, Any]:
    """The cluster of a RayCluster, RayJob or RayService."""
    spec = resource["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def pods(resource: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Pod specs by group; the head's is `head`."""
    spec = cluster_spec(resource)
    groups = {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"]["spec"]} | groups


def group(resource: dict[str, Any], name: str) -> dict[str, Any]:
    return next(group for group in cluster_spec(resource)["workerGroupSpecs"] if group["groupName"] == name)


@cache
def validator(kind: str) -> Any:
    """Of resources of a kind. The schema itself is checked once, and not for each of a thousand misspelt keys."""
    schema = SCHEMA | {"$ref": f"#/definitions/{kind}"}
    known = jsonschema.validators.validator_for(schema)
    known.check_schema(schema)
    return known(schema)


def validate(resource: dict[str, Any]) -> None:
    validator(resource["kind"]).validate(resource)


def keys(value: Any, place: Place = ()) -> Iterator[Place]:
    """Where each key stands that KubeRay or Kubernetes names."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not place or place[-1] not in FREE:
                yield (*place, key)
            yield from keys(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from keys(inner, (*place, index))


def renamed(resource: dict[str, Any], place: Place) -> dict[str, Any]:
    """A copy in which one key is misspelt."""
    changed = copy.deepcopy(resource)
    inner = changed
    for part in place[:-1]:
        inner = inner[part]
    inner[f"{place[-1]}x"] = inner.pop(place[-1])
    return changed


@pytest.fixture
def trained() -> Recipe:
    return recipes.load_recipe(str(REPOSITORY / "jobs/recipes/ct_llm_2b.yaml"))


@pytest.mark.parametrize("file", KUBERAY, ids=lambda file: file.stem)
def test_kuberay_takes_the_resource_and_no_misspelt_field_of_it(file: Path) -> None:
    resource = read(file)
    validate(resource)
    places = list(keys(resource))
    assert len(places) > 100
    for place in places:
        if place[0] != "kind":
            with pytest.raises(jsonschema.ValidationError):
                validate(renamed(resource, place))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("spec", "rayVersion"), 2.60),
        (("spec", "authOptions", "mode"), "tokens"),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),  # Kubernetes wants a string there
        (("spec", "workerGroupSpecs", 0, "maxReplicas"), "16"),
        (("metadata", "name"), "CT_LLM"),
    ],
)
def test_a_value_of_another_kind_is_refused(place: Place, value: object) -> None:
    resource = read(CLUSTER / "kuberay/raycluster.yaml")
    inner = resource
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(resource)


@pytest.mark.parametrize("file", KUBERAY, ids=lambda file: file.stem)
def test_every_pod_is_one_of_ours_that_ray_can_run_in(file: Path) -> None:
    resource = read(file)
    spec = cluster_spec(resource)
    assert spec["rayVersion"] == version("ray")
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"]
    for name, pod in pods(resource).items():
        [container] = pod["containers"]
        gpus = container["resources"]["limits"].get("nvidia.com/gpu")
        assert container["image"] in ({"ctllm-ray:gpu"} if gpus or name == "head" else {"ctllm-ray:cpu"})
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        assert (
            "/dev/shm" not in mounts
        )  # KubeRay mounts one of the pod's memory; a smaller one sends the store to disk
        assert {"secretRef": {"name": "ctllm-storage"}} in container["envFrom"]


@pytest.mark.parametrize("file", KUBERAY, ids=lambda file: file.stem)
def test_gpu_workers_may_stand_on_spot_machines_and_heads_may_not(file: Path) -> None:
    found = pods(read(file))
    assert "tolerations" not in found["head"]
    tolerated = {toleration["key"] for toleration in found["gpu"]["tolerations"]}
    assert {"nvidia.com/gpu", "spot", "cloud.google.com/gke-spot"} <= tolerated


def gpu_nodes(resource: dict[str, Any]) -> tuple[int, int]:
    """GPUs of the GPU group, least and most."""
    found = group(resource, "gpu")
    each = int(pods(resource)["gpu"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    return found["minReplicas"] * each, found["maxReplicas"] * each


def test_the_job_trains_the_recipe_on_as_many_gpus_as_it_takes(trained: Recipe) -> None:
    resource = read(CLUSTER / "kuberay/rayjob-train.yaml")
    assert gpu_nodes(resource) == trained.resources.train.workers
    python, flag, module, path, *overrides = shlex.split(resource["spec"]["entrypoint"])
    assert (python, flag, module) == ("python", "-m", "jobs.train")
    assert (REPOSITORY / path.removeprefix(f"{IMAGE_FOLDER}/")).is_file()
    assert (
        recipes.load_recipe(str(REPOSITORY / path.removeprefix(f"{IMAGE_FOLDER}/")), overrides).root
        == "s3://bucket/run"
    )


def test_clusters_that_stay_grow_to_what_the_recipe_takes_at_most(trained: Recipe) -> None:
    workers: Any = trained.resources.train.workers
    assert gpu_nodes(read(CLUSTER / "kuberay/raycluster.yaml")) == (0, workers[1])
    for name in ("aws", "gcp", "aliyun"):
        gpu = read(CLUSTER / f"launcher/{name}.yaml")["available_node_types"]["gpu"]
        assert (gpu["min_workers"], gpu["max_workers"] * gpu["resources"]["GPU"]) == (0, workers[1])


def test_the_service_is_the_configuration_of_serve_on_as_many_nodes_as_it_has_replicas() -> None:
    resource = read(CLUSTER / "kuberay/rayservice.yaml")
    served = yaml.safe_load(resource["spec"]["serveConfigV2"])
    arguments = served["applications"][0]["args"]
    arguments["recipe"] = arguments["recipe"].removeprefix(f"{IMAGE_FOLDER}/")
    assert served == read(REPOSITORY / "serve/configs/ct_llm_2b_gpu.yaml")
    serve = recipes.load_recipe(str(REPOSITORY / arguments["recipe"]), arguments["overrides"]).serve
    assert gpu_nodes(resource) == tuple(round(replicas * serve.gpus) for replicas in serve.replicas)


def test_every_pod_of_the_service_has_what_its_proxies_are_to_be_started_with() -> None:
    for pod in pods(read(CLUSTER / "kuberay/rayservice.yaml")).values():
        assert {each["name"]: each["value"] for each in pod["containers"][0]["env"]} == proxy.ENVIRONMENT


def prepared(file: Path) -> dict[str, Any]:
    """What `ray up` makes of a file before it asks a cloud."""
    return prepare_config(read(file))


@pytest.mark.parametrize("file", LAUNCHER, ids=lambda file: file.stem)
def test_ray_up_takes_the_file(file: Path) -> None:
    config = prepared(file)
    validate_config(config)
    assert config["max_workers"] <= sum(
        kind["max_workers"] for kind in config["available_node_types"].values()
    )
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token ray start" in commands[-1]
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]  # by a tunnel only


@pytest.mark.parametrize("file", LAUNCHER, ids=lambda file: file.stem)
@pytest.mark.parametrize(
    "place", [("max_worker",), ("auth", "user"), ("docker", "shm"), ("provider", "type")]
)
def test_ray_up_refuses_a_wrong_field(file: Path, place: Place) -> None:
    config = prepared(file)
    inner = config
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = 7
    with pytest.raises(jsonschema.ValidationError):
        validate_config(config)


def test_the_provider_of_alibaba_cloud_is_where_the_file_names_it() -> None:
    file = Path(__import__("ray").__file__).parent / "autoscaler/aliyun/defaults.yaml"
    assert not file.exists()  # else `type: aliyun` works again: say so in the file and take it
    module, _, name = read(CLUSTER / "launcher/aliyun.yaml")["provider"]["module"].rpartition(".")
    source = Path(__import__("ray").__file__).parent.parent / f"{module.replace('.', '/')}.py"
    assert f"class {name}(" in source.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_workers_of_the_clouds_are_spot_machines_and_the_head_is_not(name: str) -> None:
    kinds = read(CLUSTER / f"launcher/{name}.yaml")["available_node_types"]
    spot = {
        kind: re.search("spot|preemptible", str(kinds[kind]["node_config"])) is not None for kind in kinds
    }
    assert spot == {"head": False, "cpu": True, "gpu": True}


def instructions(file: Path) -> list[tuple[str, str]]:
    """(instruction, its text) of a Dockerfile, continued lines joined, comments left out."""
    lines = [
        line for line in file.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")
    ]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in joined.splitlines() if line.strip()]


@pytest.mark.parametrize("file", DOCKER, ids=lambda file: file.stem)
def test_an_image_copies_what_there_is_installs_from_the_lock_file_and_runs_as_nobody_special(
    file: Path,
) -> None:
    found = instructions(file)
    assert {name for name, _ in found} <= {"ARG", "FROM", "RUN", "USER", "WORKDIR", "COPY", "ENV"}
    sent = set((REPOSITORY / ".dockerignore").read_text(encoding="utf-8").split("\n!")[1:])
    for name, text in found:
        if name == "COPY":
            for source in text.split()[:-1]:
                assert (REPOSITORY / source).exists(), source
                assert source in {line.split("\n")[0] for line in sent}, source
        if name == "RUN" and "pip install" in text:
            assert "-c constraints.txt" in text or (
                '-c "${LOCK}"' in text and ("ARG", "LOCK=constraints.txt") in found
            )
    assert [text for name, text in found if name == "WORKDIR"] == [IMAGE_FOLDER]
    users = [text for name, text in found if name == "USER"]
    assert users[-1:] == ["1000"]
    assert not [text for name, text in found[found.index(("USER", "1000")) :] if name == "RUN"]


@pytest.mark.parametrize("file", DOCKER, ids=lambda file: file.stem)
def test_an_image_can_be_built_from_mirrors_and_names_none(file: Path) -> None:
    found = instructions(file)
    arguments = {text.partition("=")[0]: text.partition("=")[2] for name, text in found if name == "ARG"}
    assert {"BASE", "DEBIAN_MIRROR", "PIP_INDEX_URL"} <= arguments.keys()
    assert not any(value for name, value in arguments.items() if name not in ("BASE", "EXTRAS", "LOCK"))
    assert re.fullmatch(r"python:3\.11[\w.-]*", arguments["BASE"])
    assert ("FROM", "${BASE}") in found
    assert "://" not in " ".join(text for _, text in found)


def test_the_extras_that_the_images_install_are_those_of_the_package() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    for file in DOCKER:
        [extras] = re.findall(r"(?:'\.\[|ARG EXTRAS=)([\w,]+)", file.read_text(encoding="utf-8"))
        for extra in [*extras.split(","), "vllm"]:
            assert f"\n{extra} = [" in project


@pytest.mark.parametrize("lock", ["constraints.txt", "constraints-vllm.txt"])
def test_each_lock_file_keeps_to_what_the_package_asks_for(lock: str) -> None:
    pinned = dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (REPOSITORY / lock).read_text(encoding="utf-8"), re.MULTILINE)
    )
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for asked in map(Requirement, project["dependencies"]):
        assert asked.specifier.contains(pinned[asked.name.lower()]), asked
