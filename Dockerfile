# One image for collector, worker and sandbox: docker build -t capistream . ; docker run capistream worker
FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements.lock pyproject.toml README.md ./
COPY app app
COPY agents agents
COPY sinks sinks
RUN python -m venv /opt/capistream \
 && /opt/capistream/bin/pip install --no-cache-dir --require-hashes -r requirements.lock \
 && /opt/capistream/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --uid 10001 --no-create-home capistream \
 && install -d -o capistream -g capistream /var/lib/capistream
COPY --from=build /opt/capistream /opt/capistream
USER capistream
ENV PATH=/opt/capistream/bin:$PATH PYTHONUNBUFFERED=1
VOLUME /var/lib/capistream
EXPOSE 8080 6066
ENTRYPOINT ["capistream"]
CMD ["--help"]
