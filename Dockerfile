# One image for flow runs and for serving: the command says which (`preface retrain TASK`, `prefect worker start ...`).
# On machines without a GPU, --build-arg PIP_EXTRA_INDEX_URL=ADDRESS of an index of CPU builds of torch saves 5 GB.
# --build-arg PREFACE_GIT_COMMIT=$(git rev-parse HEAD) tells every version that is trained in it which code made it.

FROM python:3.11-slim AS build
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 BIN=.venv/bin
WORKDIR /app
RUN python -m venv .venv
COPY requirements.lock .
# Running needs no tests: the lock ends where theirs begins.
RUN sed -i '/^# Tests alone/,$d' requirements.lock
# The Makefile's first install line; the second stands below, and a test compares both.
RUN $BIN/python -m pip install --quiet --no-compile --requirement requirements.lock
# Python compiles what it imports: a container would do it again at every start, and all that is installed is 508 MB.
RUN $BIN/python -c "import datasets, dvc.cli, mlflow.pyfunc, prefect.flows, prefect.workers.process, torch, transformers"

FROM python:3.11-slim
RUN useradd --create-home preface && install --directory --owner preface --group preface /app
# The environment alone first: it is 2 GB and changes with the lock, the code is 3 MB and changes with params.yaml.
COPY --from=build --chown=preface:preface /app/.venv /app/.venv
WORKDIR /app
USER preface
ENV PATH=/app/.venv/bin:$PATH BIN=.venv/bin PYTHONUNBUFFERED=1
# What a run writes (.preface, bases, data) lies below /app too: mount volumes there, or name servers by environment.
COPY --chown=preface:preface . .
RUN $BIN/python -m pip install --quiet --no-compile --no-deps --no-build-isolation --editable .
# An image holds no git history, and DVC is told so.
RUN $BIN/dvc config --local core.no_scm true
ARG PREFACE_GIT_COMMIT
ENV PREFACE_GIT_COMMIT=$PREFACE_GIT_COMMIT
CMD ["preface", "--help"]
