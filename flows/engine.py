"""What a worker starts for each run: the project's environment first, then Prefect's own engine.

A worker hands a run the environment that it was started with, and a folder of no meaning. Runs work in the project that
``PREFACE_ROOT`` names (whoever keeps workers here says so), else in that of the folder, else in this checkout. What the
environment leaves open is set here as for any command (``local_project.py``), before Prefect and MLflow read it.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

from components import log_redaction
from components.errors import ParamsError
from flows.process import collector, local_project

# A log of many runs is for programs: each line one JSON object (``run_logging.JsonLine``).
JSON_LINES = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json",
    "PREFECT_LOGGING_FORMATTERS_JSON_CLASS": "flows.orchestration.run_logging.JsonLine",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "preface",  # to Prefect's page too
}


def prepare() -> Path:
    """Make this process one that works in the project; its root."""
    here = os.environ.get("PREFACE_ROOT") or Path.cwd()
    try:
        root = local_project.enter(Path(here))
    except ParamsError:
        root = local_project.enter(Path(__file__).parent)
    os.chdir(root)
    for name, value in JSON_LINES.items():
        os.environ.setdefault(name, value)
    return root


def main() -> None:
    """Run the flow run that Prefect's variables name."""
    collector.tune_gc()
    log_redaction.install()
    prepare()
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
