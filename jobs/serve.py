"""Runs `ctllm serve` as a job. Send it with `ctllm submit serve RECIPE [KEY=VALUE ...] --address ...`."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["serve", *sys.argv[1:]])
