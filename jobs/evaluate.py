"""Runs `ctllm evaluate` as a job. Send it with `ctllm submit evaluate RECIPE
[KEY=VALUE ...] --address ...`."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
