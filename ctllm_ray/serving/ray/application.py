"""The Ray Serve application of a recipe, for `ctllm serve` on this machine and `serve deploy` on a cluster.

    ctllm serve jobs/recipes/tiny.yaml root=out
    serve deploy serve/configs/cpu_cluster.yaml        # names `serve.build:deployed`, the recipe and its overrides

Three deployments: the HTTP side, the engines, one counter of limits. Engines are scaled by the requests that
each has to do; what all replicas cannot take is refused with 429 at once rather than queued without end.
"""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray import serve as ray_serve
from ray.serve.config import AutoscalingConfig, HTTPOptions, RequestRouterConfig
from ray.serve.schema import LoggingConfig

from ctllm_ray.base import resolve, storage
from ctllm_ray.base.errors import InputError
from ctllm_ray.base.recipe import Recipe, load_recipe
from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.evaluate.plan import locate_paths, names
from ctllm_ray.evaluate.scoring import contamination
from ctllm_ray.model import config
from ctllm_ray.model.fingerprint import hash_model
from ctllm_ray.ray_session import environment, session
from ctllm_ray.serving.api import keys, model_card, rate_limits
from ctllm_ray.serving.evaluations.deployment import EvaluationsReplica
from ctllm_ray.serving.ray import proxy, shutdown
from ctllm_ray.serving.ray.engine_deployments import EngineReplica
from ctllm_ray.serving.ray.ingress import Ingress
from ctllm_ray.serving.ray.limits_deployment import LimitsReplica
from ctllm_ray.tokenizer import tokenizer
from ctllm_ray.train.checkpoint import export

NAME, INGRESS = "ctllm", "api"
DRAIN_S = 120  # time for running answers when a replica is replaced
HEALTH_S = 5
INGRESS_REQUESTS = 1024  # maximum requests in an ingress: they wait for engines


def application(recipe: Recipe) -> Any:
    """The Ray Serve application. Raises `CtllmError` if there is no model, or it
    would be open without a key."""
    serve = recipe.serve
    folder = storage.absolute(serve.model) if serve.model else export.newest_export(recipe)
    facts = _facts(recipe, folder)
    keys.check_bind(serve.host, facts["keys"])
    light = _actor_options(recipe)
    counter: Any = ray_serve.deployment(LimitsReplica, name="limits", ray_actor_options=light)
    usage = storage.join(facts["keys"].rpartition("/")[0], rate_limits.FILE)
    ingress: Any = ray_serve.deployment(
        Ingress,
        name=INGRESS,
        num_replicas=serve.ingresses,
        ray_actor_options=light,
        max_ongoing_requests=INGRESS_REQUESTS,
        health_check_period_s=HEALTH_S,
        graceful_shutdown_timeout_s=DRAIN_S,
    )
    replicas = _engines(recipe, folder, facts)
    known = tokenizer.load_tokenizer(folder)
    name = serve.name or (folder.rstrip("/").rpartition("/")[2] if serve.model else _id(recipe))
    about = model_card.read_card(folder, name, known, facts["context_tokens"], facts["sha256"])
    return ingress.bind(
        facts, known, about, replicas, counter.bind(usage), _evaluations(facts, replicas, light)
    )


def _facts(recipe: Recipe, folder: str) -> dict[str, Any]:
    """The values that replicas need, as plain data."""
    serve, shape = recipe.serve, config.of_folder(folder)
    facts: dict[str, Any] = {
        "serve": serve.model_dump(mode="json"),
        "folder": folder,
        "sha256": hash_model(folder),
        "context_tokens": serve.request_tokens(shape.context_tokens),
        "vocab_size": shape.vocab_size,
        "keys": keys.file_of(recipe.root, recipe.name),
        "reports": _reports(recipe),
    }
    if recipe.evaluate and names(recipe.evaluate):
        facts |= {
            "evaluate": locate_paths(recipe).model_dump(mode="json"),
            "evaluations": storage.join(
                storage.absolute(recipe.root), recipe.name, recipe.version, "evaluations"
            ),
            "decontaminated": contamination.folder_of(recipe),
        }
    return facts


def _actor_options(recipe: Recipe, cpus: float = 0, gpus: float = 0) -> dict[str, Any]:
    """Ray resources of a replica, on nodes of its kind: one without a GPU would keep a
    GPU node from scaling down."""
    selector = recipe.resources.label_selector(gpus)
    return {"num_cpus": cpus, "num_gpus": gpus} | ({"label_selector": selector} if selector else {})


def _evaluations(facts: dict[str, Any], replicas: Any, options: dict[str, Any]) -> Any:
    """The bound deployment of evaluations; None if the recipe has no tasks."""
    if "evaluate" not in facts:
        return None
    deployment: Any = ray_serve.deployment(
        EvaluationsReplica,
        name="evaluations",
        ray_actor_options=options,
        max_ongoing_requests=INGRESS_REQUESTS,
        health_check_period_s=HEALTH_S,
    )
    return deployment.bind(facts, replicas)


def _engines(recipe: Recipe, folder: str, facts: dict[str, Any]) -> Any:
    """The bound deployment of engines."""
    serve = recipe.serve
    engine = resolve.load_module(resolve.ENGINES, serve.engine)
    if hasattr(engine, "bind_engine"):
        return engine.bind_engine(serve, folder, facts, engine_options(serve))
    resources = _actor_options(recipe, serve.cpus, serve.gpus)
    replicas: Any = ray_serve.deployment(EngineReplica, ray_actor_options=resources, **engine_options(serve))
    return replicas.bind(folder, facts["sha256"], facts["serve"])


def engine_options(serve: Serve) -> dict[str, Any]:
    """Scaling, routing and health options of engine replicas, for every engine."""
    least, most = serve.replicas
    return {
        "name": "engine",
        "max_ongoing_requests": serve.slots + serve.max_waiting,
        "max_queued_requests": max(1, serve.max_waiting),
        "autoscaling_config": AutoscalingConfig(
            min_replicas=least,
            initial_replicas=max(1, least),
            max_replicas=most,
            target_ongoing_requests=serve.target_requests,
            upscale_delay_s=10,
            downscale_delay_s=serve.idle_s,
        ),
        "request_router_config": RequestRouterConfig.model_validate(
            {"request_router_class": "ctllm_ray.serving.ray.routing:PrefixRouter"}
        ),
        "health_check_period_s": HEALTH_S,
        "health_check_timeout_s": max(30.0, serve.stuck_s),
        "graceful_shutdown_timeout_s": DRAIN_S,
    }


def _id(recipe: Recipe) -> str:
    run = f"-{recipe.train.run}" if recipe.train and recipe.train.run else ""
    return f"{recipe.name}-{recipe.version}{run}"


def _reports(recipe: Recipe) -> dict[str, str]:
    """The existing reports (`ctllm report`), by section."""
    results = {of: storage.join(recipe.folder(of), "report.html") for of in ("clean", "train")}
    return {of: uri for of, uri in results.items() if storage.exists(uri)}


def deployed(arguments: dict[str, Any]) -> Any:
    """The application of a config file: `args: {recipe: PATH, overrides: [KEY=VALUE, ...]}`."""
    return application(load_recipe(arguments["recipe"], arguments.get("overrides") or []))


def serve_until_signal(recipe: Recipe, tell: Callable[[str], None]) -> None:
    """Serves until Ctrl-C or SIGTERM. `tell` prints lines for people."""
    with serving_alone(recipe) as url:
        tell(f"{url} - the page, and the API below {url}/v1")
        tell(_about_keys(recipe))
        wait_and_drain(recipe, tell)


def _about_keys(recipe: Recipe) -> str:
    if keys.read_keys(keys.file_of(recipe.root, recipe.name)):
        return "clients must send an API key: `Authorization: Bearer KEY`"
    return "no API key is needed, and only this machine is served; `ctllm keys create` creates the first key"


def wait_and_drain(recipe: Recipe, tell: Callable[[str], None]) -> None:
    """Waits for Ctrl-C or SIGTERM, then until running requests have ended."""
    shutdown.wait_for_signal()
    shutdown.drain(NAME, INGRESS, recipe.serve.drain_s, tell)


@contextmanager
def serving_session(cpus: int, object_store_mb: int) -> Iterator[None]:
    """Like `session`. If it starts a Ray, its HTTP proxies get the middlewares of proxy.py."""
    with environment(proxy.ENVIRONMENT), session(cpus, object_store_mb):
        yield


@contextmanager
def serving_alone(recipe: Recipe) -> Iterator[str]:
    """As `serving`, on the Ray that is up or else one that has room for the most replicas."""
    cpus = max(os.cpu_count() or 1, math.ceil(recipe.serve.replicas[1] * recipe.serve.cpus))
    with serving_session(cpus, recipe.resources.object_store_mb), serving(recipe) as url:
        yield url


@contextmanager
def serving(recipe: Recipe) -> Iterator[str]:
    """Serves a recipe on the running Ray; yields the URL once it is ready.

    Raises `CtllmError` if there is nothing to serve or the port is taken.
    """
    host, app = recipe.serve.host, application(recipe)
    port = free_port(host, recipe.serve.port)
    quiet = LoggingConfig(log_level="ERROR", enable_access_log=False)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        ray_serve.start(http_options=HTTPOptions(host=host, port=port), logging_config=quiet)
        ray_serve.run(app, name=NAME, logging_config=quiet)
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        shutdown.shut_down_serve()


def free_port(host: str, port: int) -> int:
    """Returns the port, or a free one for 0. Raises `InputError` if it is taken: Ray
    Serve would retry for long."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        remedy = "stop the program that uses the port, or set serve.port to another one (0: any free port)"
        raise InputError(
            f"port {port} cannot be used: {error.strerror}", where=host, remedy=remedy
        ) from error
