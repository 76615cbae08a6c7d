"""`ctllm prepare` as a job on a cluster: `ctllm submit prepare RECIPE [KEY=VALUE ...] --address ...` sends
it."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["prepare", *sys.argv[1:]])
