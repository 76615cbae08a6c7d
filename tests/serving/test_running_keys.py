"""Keys on Ray Serve. The last file that shares the running server: a key locks it for good."""

from __future__ import annotations

import time

import pytest

from ctllm_ray.serving.api import keys
from tests.serving.test_ray_serve import Running


@pytest.mark.cluster
def test_a_key_that_is_made_locks_a_running_server_and_its_limits_hold_over_replicas(
    running: Running,
) -> None:
    file = keys.file_of(running.recipe.root, running.recipe.name)
    assert running.post(prompt="好", max_tokens=2).status_code == 200
    key = keys.create_key(file, "team", requests_per_minute=2)
    end = time.monotonic() + 30
    while running.post(prompt="好", max_tokens=2).status_code != 401 and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(keys.LOOK_S)  # until the other replica of the API has looked, too
    assert [running.post(prompt="好", max_tokens=2, key=key).status_code for _ in range(3)] == [200, 200, 429]
