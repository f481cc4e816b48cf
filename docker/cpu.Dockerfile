# spade-faiss without a GPU; build and run it as docs/docker.md says.

# The index of Docker's official image, for amd64 and arm64. To move on, look a newer one up with
# `docker buildx imagetools inspect python:3.11-slim-bookworm`.
ARG PYTHON=python:3.11.15-slim-bookworm@sha256:b18992999dbe963a45a8a4da40ac2b1975be1a776d939d098c647482bcad5cba

# --- everything that is installed, with pip and whatever it needs to build ---
FROM ${PYTHON} AS packages

# PyTorch's own builds for the CPU: what PyPI has would bring 3 GB of CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=cpu,lite,serve

# All versions are those of constraints.txt, which in the environment also hold for what pip
# builds packages with.
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY constraints.txt ./
# hadolint ignore=DL3013
RUN python -m venv --without-pip /opt/spade \
    && pip --python /opt/spade install --no-deps --index-url "$TORCH_INDEX" torch

# An empty package stands for ours, so that its changes do not install all this again. Torch's
# headers, tests and compilers are of no use here.
COPY pyproject.toml README.md LICENSE ./
# hadolint ignore=DL3013
RUN mkdir spade_faiss && touch spade_faiss/__init__.py \
    && pip --python /opt/spade install ".[$EXTRAS]" \
    && pip --python /opt/spade uninstall --yes spade-faiss \
    && torch=$(echo /opt/spade/lib/python3*/site-packages/torch) \
    && rm -rf "$torch/include" "$torch/test" "$torch"/bin/protoc* "$torch"/bin/test_*

# --- the program, whose kernels are compiled for any processor of this architecture ---
FROM packages AS program
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY setup.py ./
COPY spade_faiss spade_faiss
# Without its kernels the program would be installed, too, and search slowly.
RUN pip --python /opt/spade install --no-deps --root /program . \
    && test -e /program/opt/spade/lib/python3*/site-packages/spade_faiss/search/native/_kernels.so

# --- the two writable folders, and the weights, if any are to be baked in ---
FROM program AS folders
ARG WEIGHTS=
RUN install -d -m 1777 /folders/data /folders/cache /folders/cache/torch \
        /folders/cache/torch/hub /folders/cache/torch/hub/checkpoints \
    && if [ -n "$WEIGHTS" ]; then TORCH_HOME=/folders/cache/torch /opt/spade/bin/python -c \
        "import sys; from spade_faiss.features.weights import fetch; fetch(sys.argv[1])" \
        "$WEIGHTS"; fi

# --- the image ---
FROM ${PYTHON}
LABEL org.opencontainers.image.title="spade-faiss" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.description="Visual anomaly detection by retrieval, on the CPU" \
      org.opencontainers.image.licenses="MIT"
COPY --from=packages /opt/spade /opt/spade
COPY --from=folders /folders /
COPY docker/healthcheck.py /opt/spade/
COPY --from=program /program/opt/spade /opt/spade

# Nothing is written but to /cache (weights), /data and /tmp, whoever the user is.
ENV PATH=/opt/spade/bin:$PATH HOME=/cache TORCH_HOME=/cache/torch \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /data
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "/opt/spade/healthcheck.py"]
ENTRYPOINT ["spade-faiss"]
CMD ["--help"]
