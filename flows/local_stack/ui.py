"""The MLflow page and the Prefect page on the embedded stores, until Ctrl-C. `make ui` runs it.

For looking, on this machine alone. It starts no page for a store that a server of its own already shows
(MLFLOW_TRACKING_URI or PREFECT_API_URL set), and it knows nothing of what the stores hold.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from components.errors import SetupError
from flows.local_stack import supervisor
from flows.local_stack.supervisor import Service
from flows.process import edge, local_project
from flows.process.process_list import HOST
from registry.mlflow import schema

MLFLOW_PORT, PREFECT_PORT = 5000, 4200
# What a server keeps in memory is forgotten when it restarts: a place that was held then is never free again.
LEASES = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}


def pages(
    environment: Mapping[str, str], mlflow_port: int = MLFLOW_PORT, prefect_port: int = PREFECT_PORT
) -> list[Service]:
    """What there is to start: the embedded stores only."""
    found = []
    store = environment["MLFLOW_TRACKING_URI"]
    if not store.startswith(("http://", "https://")):
        # The store's own artifact folder is read in place; nothing is proxied, so no second folder appears.
        mlflow = ("-m", "mlflow", "ui", "--backend-store-uri", store, "--no-serve-artifacts", "--workers", "1")
        command = (*mlflow, "--host", HOST, "--port", str(mlflow_port))
        # Its tables first: the server and the first run of a worker would make them at the same time.
        found.append(Service("MLflow", mlflow_port, command, first=lambda: schema.ensure(store)))
    if "PREFECT_API_URL" not in environment:
        prefect = ("-m", "prefect", "server", "start", "--host", HOST, "--port", str(prefect_port))
        found.append(Service("Prefect", prefect_port, prefect, LEASES))
    return found


def main() -> None:
    root = local_project.enter()
    store = root / ".preface"
    found = pages(os.environ)
    if not found:
        servers = f"{os.environ['MLFLOW_TRACKING_URI']} and {os.environ['PREFECT_API_URL']}"
        raise SetupError(f"both stores have servers of their own; open {servers}")
    if not store.is_dir():
        raise SetupError(f"{store} does not exist: nothing has run here yet; try 'make demo' first")
    local_project.keep_private(Path(os.environ["PREFECT_HOME"]))
    folder = store / "ui"
    folder.mkdir(exist_ok=True)
    supervisor.serve(found, folder)


if __name__ == "__main__":
    with edge.guarded(["make", "ui"]):
        main()
