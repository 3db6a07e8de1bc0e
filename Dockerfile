# One image for every part: hubbub serve, hubbub api, hubbub writer.
FROM python:3.11.11-slim-bookworm AS build
COPY requirements.lock pyproject.toml README.md /build/
RUN python -m venv /opt/hubbub \
    && /opt/hubbub/bin/pip install --no-cache-dir --require-hashes -r /build/requirements.lock
COPY src /build/src
RUN /opt/hubbub/bin/pip install --no-cache-dir --no-deps --no-build-isolation /build

FROM python:3.11.11-slim-bookworm
COPY --from=build /opt/hubbub /opt/hubbub
RUN useradd --system --uid 10001 hubbub && install -d -o hubbub -m 700 /data
USER hubbub
ENV PATH=/opt/hubbub/bin:$PATH HUBBUB_DATA=/data HUBBUB_HOST=0.0.0.0
EXPOSE 3000
CMD ["hubbub", "serve"]
