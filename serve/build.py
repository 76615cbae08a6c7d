"""The import path that configurations of Ray Serve name: `serve deploy serve/configs/cpu_cluster.yaml`."""

from ctllm_ray.serving.ray.application import deployed

__all__ = ["deployed"]
