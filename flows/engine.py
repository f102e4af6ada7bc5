"""What a worker starts for each run: the project's environment first, then Prefect's own engine.

A worker gives a run its working directory, the project's root, and the environment that it was started with; what that
leaves open is set here as for any command (``places.py``), before Prefect and MLflow read it.
"""

from __future__ import annotations

import os
import runpy

from flows import places

# A log of many runs is for programs: each line one JSON object (``run_log.JsonLine``).
JSON_LINES = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json",
    "PREFECT_LOGGING_FORMATTERS_JSON_CLASS": "flows.run_log.JsonLine",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "preface",  # to Prefect's page too
}


def main() -> None:
    """Run the flow run that Prefect's variables name."""
    places.enter()
    for name, value in JSON_LINES.items():
        os.environ.setdefault(name, value)
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
