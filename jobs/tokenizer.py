"""`ctllm tokenizer` as a job on a cluster: `ctllm submit tokenizer RECIPE [KEY=VALUE ...] --address ...`
sends it."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["tokenizer", *sys.argv[1:]])
