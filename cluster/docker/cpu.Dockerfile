# Every node of a CPU cluster, head nodes included: this package, what the lock file names, Ray's job server.
#
#   docker build -f cluster/docker/cpu.Dockerfile -t ctllm-ray:cpu .
#
# Mirrors, where the usual registries are slow or out of reach (names of your own in place of the capitals):
#   --build-arg BASE=MIRROR/library/python:3.11-slim-bookworm   the base image
#   --build-arg DEBIAN_MIRROR=URL                               Debian's packages
#   --build-arg PIP_INDEX_URL=URL                               PyPI
#   --build-arg PIP_EXTRA_INDEX_URL=URL                         an index with CPU wheels of torch: gigabytes less than PyPI's CUDA ones
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
ARG PIP_EXTRA_INDEX_URL=
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY ctllm_ray ctllm_ray
COPY jobs jobs
COPY serve serve
# An empty variable would be an empty index.
RUN [ -n "${PIP_INDEX_URL}" ] || unset PIP_INDEX_URL; \
    [ -n "${PIP_EXTRA_INDEX_URL}" ] || unset PIP_EXTRA_INDEX_URL; \
    pip install --no-cache-dir -c constraints.txt --editable '.[cluster]' \
 && chown -R ray:ray /home/ray

USER 1000
ENV PYTHONPATH=/home/ray/ctllm DS_ACCELERATOR=cpu RAY_AUTH_MODE=token
