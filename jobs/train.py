"""`ctllm train` as a job on a cluster: `ctllm submit train RECIPE [KEY=VALUE ...] --address ...` sends it."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
