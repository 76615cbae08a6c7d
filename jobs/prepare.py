"""`ray job submit --working-dir . -- python -m jobs.prepare RECIPE [KEY=VALUE ...]`: `ctllm prepare` on a cluster."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["prepare", *sys.argv[1:]])
