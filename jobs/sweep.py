"""`ctllm sweep` as a job on a cluster: `ctllm submit sweep RECIPE [KEY=VALUE ...] --address ...` sends it."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])
