# GPU nodes, and the head node of a cluster that has some: this package, what the lock file names, Ray's job server, the
# fused kernels. torch brings CUDA's libraries; the host brings the driver (NVIDIA's container toolkit). Where DeepSpeed is
# to compile kernels of its own (`offload`), BASE must have nvcc: a CUDA development image with Python 3.11.
#
#   docker build -f cluster/docker/gpu.Dockerfile -t ctllm-ray:gpu .
#
# With vLLM (`serve.engine=vllm`), which pins some older versions:
#   --build-arg EXTRAS=cluster,gpu,vllm --build-arg LOCK=constraints-vllm.txt
#
# Mirrors, where the usual registries are slow or out of reach (names of your own in place of the capitals):
#   --build-arg BASE=MIRROR/library/python:3.11-slim-bookworm   the base image
#   --build-arg DEBIAN_MIRROR=URL                               Debian's packages
#   --build-arg PIP_INDEX_URL=URL                               PyPI
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# g++: torch and DeepSpeed compile at first use. rsync, ssh: the cluster launcher. wget: KubeRay's probes.
ARG DEBIAN_MIRROR=
RUN if [ -n "${DEBIAN_MIRROR}" ]; then sed -i "s|^URIs: .*debian$|URIs: ${DEBIAN_MIRROR}|" /etc/apt/sources.list.d/debian.sources; fi \
 && apt-get update \
 && apt-get install -y --no-install-recommends g++ git openssh-client procps rsync wget \
 && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 ray
WORKDIR /home/ray/ctllm
ARG PIP_INDEX_URL=
ARG EXTRAS=cluster,gpu
ARG LOCK=constraints.txt
COPY pyproject.toml constraints.txt constraints-vllm.txt README.md LICENSE ./
COPY ctllm_ray ctllm_ray
COPY jobs jobs
COPY serve serve
# An empty variable would be an empty index.
RUN [ -n "${PIP_INDEX_URL}" ] || unset PIP_INDEX_URL; \
    pip install --no-cache-dir -c "${LOCK}" --editable ".[${EXTRAS}]" \
 && chown -R ray:ray /home/ray

USER 1000
ENV PYTHONPATH=/home/ray/ctllm RAY_AUTH_MODE=token NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
