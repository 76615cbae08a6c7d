"""Runs `ctllm prepare` as a job. Send it with `ctllm submit prepare RECIPE [KEY=VALUE ...] --address ...`."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["prepare", *sys.argv[1:]])
