"""`ray job submit --working-dir . -- python -m jobs.train RECIPE [KEY=VALUE ...]`: `ctllm train` on a cluster."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
