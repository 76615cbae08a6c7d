"""Runs `ctllm export` as a job. Send it with `ctllm submit export RECIPE [KEY=VALUE ...] --address ...`."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
