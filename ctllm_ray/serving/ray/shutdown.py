"""Shutdown of `ctllm serve`: one signal drains, a second one ends at once, and
the output says what happened."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

import ray
from ray import serve
from ray._private.worker import global_worker
from ray.serve.context import _disconnect, _get_global_client

from ctllm_ray.serving.api.draining import NOTICE_S, DrainOutcome

LOOK_S = 0.1
FLUSH_S = 0.5  # for Ray Serve's proxy to send the last bytes
ANSWER_S = 10.0  # for ingresses to answer, in addition to the time for requests
SHUTDOWN_S = 30.0
CONTROLLER, NAMESPACE = "SERVE_CONTROLLER_ACTOR", "serve"


def wait_for_signal() -> None:
    """Waits for Ctrl-C or SIGTERM. Another signal after that ends the process at once."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            sys.stderr.write("\nended at once: what was under way is cut\n")
            os._exit(128 + number)  # Ray's processes end with this one
        came.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    while not came:
        time.sleep(LOOK_S)


def drain(app: str, ingress: str, grace_s: float, tell: Callable[[str], None]) -> None:
    """Lets running requests finish for a time, and reports the result."""
    tell(
        f"draining: no new requests are accepted, running ones have {grace_s:g} s to "
        "finish; press Ctrl-C again to stop at once"
    )
    try:
        handle = serve.get_deployment_handle(ingress, app)
        ended: list[DrainOutcome] = handle.broadcast("drain", grace_s).results(
            timeout_s=grace_s + NOTICE_S + ANSWER_S
        )
    except Exception as error:  # whatever Ray raises, the shutdown continues
        tell(f"the API did not answer, so running requests are cut: {type(error).__name__}")
        return
    finished, cut = sum(each.finished for each in ended), sum(each.cut for each in ended)
    time.sleep(FLUSH_S)
    if not finished + cut:
        tell("stopped: no request was running")
        return
    tell(
        f"stopped: of {finished + cut} running requests {finished} finished"
        + (f", {cut} were cut" if cut else "")
    )


def shut_down_serve() -> None:
    """Like `ray.serve.shutdown`, but quiet; does nothing if Serve is not running.

    Serve's last step kills its own controller, to which this process always has an open request. Ray would
    print that the task failed and will be retried forever, which is not true.
    """
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return
    _stop_error_messages()
    client.shutdown_cached_handles()
    ray.get(client._controller.graceful_shutdown.remote(wait=False))
    deadline = time.monotonic() + SHUTDOWN_S
    while time.monotonic() < deadline:
        try:
            ray.get_actor(CONTROLLER, namespace=NAMESPACE)
        except ValueError:  # it is gone, and everything else before it
            break
        time.sleep(LOOK_S)
    _disconnect()


def _stop_error_messages() -> None:
    """Stops Ray's thread that prints cluster errors, as `ray.shutdown` does; `ray.init` starts another."""
    global_worker.threads_stopped.set()
    if subscriber := getattr(global_worker, "gcs_error_subscriber", None):
        subscriber.close()
