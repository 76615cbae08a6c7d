"""Runs `ctllm train` as a job. Send it with `ctllm submit train RECIPE [KEY=VALUE ...] --address ...`."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
