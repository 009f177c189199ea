# One image for collector, worker and sandbox. docs/deploy.md tells how to run it:
#
#   docker build -t capistream .
#   docker run --read-only --tmpfs /tmp -v state:/var/lib/capistream capistream worker
#
# It writes to /var/lib/capistream only: local state, a cache of what Kafka has.

FROM python:3.13.14-slim-trixie AS build
WORKDIR /build
COPY requirements.lock requirements.runtime.lock ./
# Wheels with known hashes only: nothing of theirs runs here. The two last lines make it smaller: of phonenumbers we need
# what a number is, not where it lives, and pip stays out of the image.
RUN python -m venv --without-pip /opt/capistream \
 && pip --python /opt/capistream/bin/python install --no-cache-dir --only-binary :all: --require-hashes -r requirements.runtime.lock \
 && awk '/^[^ ]/ {wanted = /^setuptools==/} wanted' requirements.lock > requirements.build.lock \
 && pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements.build.lock \
 && cd /opt/capistream/lib/python3.*/site-packages/phonenumbers \
 && rm -r geodata carrierdata tzdata
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY agents agents
COPY sinks sinks
RUN pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation --wheel-dir dist . \
 && pip --python /opt/capistream/bin/python install --no-cache-dir --no-index --no-deps dist/*.whl

FROM python:3.13.14-slim-trixie
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin capistream \
 && install -d -o capistream -g capistream /var/lib/capistream
COPY --from=build /opt/capistream /opt/capistream
COPY deploy/docker/healthy.py /opt/capistream/healthy.py
# Numbers, not names: Kubernetes' runAsNonRoot cannot look a name up.
USER 10001:10001
ENV PATH=/opt/capistream/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
VOLUME /var/lib/capistream
EXPOSE 8080 6066
# One of them runs here: a worker, the collector, or the sandbox.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=4 \
  CMD ["python", "/opt/capistream/healthy.py", "http://127.0.0.1:6066/livez", "http://127.0.0.1:8080/healthz", "http://127.0.0.1:8090/balance.json"]
ENTRYPOINT ["capistream"]
CMD ["--help"]
