# SageMaker's container contract for factorization machines: `docker run IMAGE train` and `docker run IMAGE serve`.
#
#   docker build -t fmtune-sagemaker .
#   docker run --rm -v "$PWD/ml:/opt/ml" fmtune-sagemaker train
#   docker run --rm -v "$PWD/ml:/opt/ml" -p 127.0.0.1:8080:8080 fmtune-sagemaker serve

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements-image.lock ./
RUN python -m venv /opt/fmtune \
 && /opt/fmtune/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-image.lock
COPY pyproject.toml README.md LICENSE ./
COPY fmtune ./fmtune
COPY studies ./studies
COPY datasets ./datasets
RUN /opt/fmtune/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation .
# Kernels are compiled here, so that a job or an endpoint on a processor of the same kind starts at once.
ENV FMTUNE_CACHE_DIR=/var/cache
COPY docker/warm.py /
WORKDIR /
RUN /opt/fmtune/bin/python warm.py

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="fmtune" \
      org.opencontainers.image.description="SageMaker's factorization machines, drop-in" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true"
COPY --from=build /opt/fmtune /opt/fmtune
COPY --from=build /var/cache/fmtune /var/cache/fmtune
COPY docker/train docker/serve /usr/local/bin/
# SageMaker runs a container as root and mounts /opt/ml so; nothing below it belongs to another user.
ENV PATH=/opt/fmtune/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    FMTUNE_CACHE_DIR=/var/cache
WORKDIR /opt/ml
EXPOSE 8080
# exec form: `train` and `serve` are process 1 and receive SIGTERM themselves.
ENTRYPOINT []
CMD ["serve"]
