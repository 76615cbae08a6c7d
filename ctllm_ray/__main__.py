"""`python -m ctllm_ray`: the same as `ctllm`."""

from ctllm_ray.cli import main

if __name__ == "__main__":
    main()
