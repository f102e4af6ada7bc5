# One image for flow runs and for serving: the command says which (`preface retrain TASK`, `prefect worker start ...`).
# On machines without a GPU, --build-arg PIP_EXTRA_INDEX_URL=ADDRESS of an index of CPU builds of torch saves 5 GB.

FROM python:3.11-slim AS build
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 BIN=.venv/bin
WORKDIR /app
RUN python -m venv .venv
# The Makefile's two install lines; a test compares them. The lock alone first: it changes less often than the code.
COPY requirements.lock .
RUN $BIN/python -m pip install --quiet --requirement requirements.lock
COPY . .
RUN $BIN/python -m pip install --quiet --no-deps --no-build-isolation --editable .
# An image holds no git history, and DVC is told so.
RUN $BIN/dvc config --local core.no_scm true

FROM python:3.11-slim
RUN useradd --create-home preface && install --directory --owner preface --group preface /app
# What a run writes (.preface, bases, data) lies below /app too: mount volumes there, or name servers by environment.
COPY --from=build --chown=preface:preface /app /app
WORKDIR /app
USER preface
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1
CMD ["preface", "--help"]
