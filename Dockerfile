# docker build --target cpu -t ccl . && docker run --rm -v "$PWD:/work" ccl demo --smoke --runs-dir runs
# docker build --target cuda -t ccl:cuda . && docker run --rm --gpus all -v "$PWD:/work" ccl:cuda doctor
FROM python:3.11-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
COPY . /src
WORKDIR /work
ENTRYPOINT ["ccl"]
CMD ["--help"]

FROM base AS cpu
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu "/src[eval,world]" && rm -rf /src

# PyPI's torch for Linux brings CUDA's libraries; the driver is the host's.
FROM base AS cuda
RUN pip install "/src[eval,world]" && rm -rf /src
