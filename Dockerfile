# The wheel of this checkout and what requirements.lock pins; `docker compose up` builds and serves.
FROM python:3.12-slim AS build

# pysqlite3 and pycld2 have no wheels for ARM and are compiled there.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libsqlite3-dev \
    && rm -rf /var/lib/apt/lists/*

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/sophia
ENV PATH=/opt/sophia/bin:$PATH

WORKDIR /build
COPY requirements.lock ./
RUN pip install --require-hashes --no-deps --requirement requirements.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
# The lock pins the build backend, too.
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip install --no-deps --no-index /wheels/*.whl


FROM python:3.12-slim

# The inference engine of the sandbox needs libgomp.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 sophia \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin sophia \
    && install --directory --owner=10001 --group=10001 /data

COPY --from=build /opt/sophia /opt/sophia
ENV PATH=/opt/sophia/bin:$PATH PYTHONUNBUFFERED=1
ENV SOPHIA_DATA_DIR=/data SOPHIA_SERVER_HOST=0.0.0.0
# Large buffers, of slow readers above all, go back to the system instead of staying with the process.
ENV MALLOC_MMAP_THRESHOLD_=131072

# sophia.yaml and routing-rules.yaml are read from here.
WORKDIR /data
USER 10001:10001
VOLUME /data
EXPOSE 8080

# No proxy of the environment stands between the container and itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8080/health/live', timeout=4)"]

ENTRYPOINT ["sophia"]
CMD ["serve"]
