# restore serve in a container.
#
#   docker build -t restore .                          for processors
#   docker build -t restore --build-arg TORCH=cu130 .  for NVIDIA GPUs (run with --gpus all)
#   docker run -p 127.0.0.1:7860:7860 -e RESTORE_TOKEN=0123456789abcdef restore
#
# TORCH is the name of one of torch's package indices: cpu, cu126, cu130.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG TORCH=cpu
WORKDIR /build
RUN python -m venv /opt/restore
ENV PATH=/opt/restore/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# torch first, in a layer of its own: it is large and changes rarely.
RUN pip install --index-url "https://download.pytorch.org/whl/${TORCH}" "torch>=2.11" "torchvision>=0.26"
COPY pyproject.toml README.md LICENSE ./
COPY restore ./restore
COPY weights ./weights
COPY samples ./samples
# What is here is installed, not a release.
# hadolint ignore=DL3013
RUN pip install ".[web]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/restore /opt/restore
RUN useradd --system --uid 10001 --create-home restore
USER 10001
WORKDIR /tmp
ENV PATH=/opt/restore/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
# Inside a container 0.0.0.0 is all it can bind to; who gets in, the token decides.
CMD ["sh", "-c", "exec restore serve --host 0.0.0.0 --token \"${RESTORE_TOKEN:?set RESTORE_TOKEN to what clients have to know}\""]
