"""Runs `ctllm tokenizer` as a job. Send it with `ctllm submit tokenizer RECIPE
[KEY=VALUE ...] --address ...`."""

import sys

from ctllm_ray.cli import main

if __name__ == "__main__":
    main(["tokenizer", *sys.argv[1:]])
