"""Runs `ctllm sweep` as a job. Send it with `ctllm submit sweep RECIPE [KEY=VALUE ...] --address ...`."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])
