"""`ctllm export` as a job on a cluster: `ctllm submit export RECIPE [KEY=VALUE ...] --address ...` sends
it."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
