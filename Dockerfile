# The proxy as an image: docker build -t pgheadroom .
# Nothing of the build stays in it: no compiler, no sources, no package index.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py README.md ./
COPY proxy ./proxy
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
 && python -m venv /opt/pgheadroom \
 && /opt/pgheadroom/bin/pip install --no-cache-dir /wheels/*.whl
# Without a compiler nothing is compiled, and the proxy then runs several times slower: not here.
WORKDIR /
RUN ["/opt/pgheadroom/bin/python", "-c", "import proxy.wire._compiled"]

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/pgheadroom /opt/pgheadroom
ENV PATH=/opt/pgheadroom/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PGHEADROOM_CONFIG=/etc/pgheadroom/pgheadroom.yaml
# By number: Kubernetes cannot tell whether a named user is root.
USER 65532:65532
WORKDIR /etc/pgheadroom
EXPOSE 6432 9432
# SIGTERM drains: no new clients, running work may finish within shutdown.drain_timeout. Give it that long before SIGKILL
# (docker: --stop-timeout, compose: stop_grace_period, Kubernetes: terminationGracePeriodSeconds).
STOPSIGNAL SIGTERM
# Alive, not ready: a lost database must not restart the proxy.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9432/healthz', timeout=2)"]
ENTRYPOINT ["pgheadroom"]
CMD ["serve"]
