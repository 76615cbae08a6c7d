"""`ctllm evaluate` as a job on a cluster: `ctllm submit evaluate RECIPE [KEY=VALUE ...] --address ...` sends
it."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
