"""`ctllm serve` as a job on a cluster: `ctllm submit serve RECIPE [KEY=VALUE ...] --address ...` sends it."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["serve", *sys.argv[1:]])
