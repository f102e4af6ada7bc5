"""What a worker starts for each run in place of ``flows.engine``: the same, but a run that was ordered to die does.

An order is a JSON file under PREFACE_TEST_ORDERS, named after the flow run; a run that is started again has another id,
and lives:

    {"step": "train", "edge": "before"}    SIGKILL when the step begins ("after": when its body is done)
    {"seconds": 2.5}                       SIGKILL so long after the process began
    {"store": "set_stage", "edge": "after"}    SIGKILL before or after the first call of this method of the store
    {"record": "FILE"}                     no kill: the name of every step that begins, a line each
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

ORDERS = "PREFACE_TEST_ORDERS"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def obey(order: dict[str, Any]) -> None:
    """From now on every step that is defined looks at the order."""
    if "seconds" in order:
        timer = threading.Timer(order["seconds"], die)
        timer.daemon = True
        timer.start()
        return
    if "store" in order:
        kill_at_store(order["store"], order["edge"])
        return
    from flows.orchestration import step as steps

    plain = steps.step

    def mortal(name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        def made(body: Callable[..., Any]) -> Any:
            @functools.wraps(body)
            def looking(*args: Any, **kwargs: Any) -> Any:
                if "record" in order:
                    with Path(order["record"]).open("a", encoding="utf-8") as file:
                        file.write(f"{name}\n")
                if (name, "before") == (order.get("step"), order.get("edge")):
                    die()
                found = body(*args, **kwargs)
                if (name, "after") == (order.get("step"), order.get("edge")):
                    die()
                return found

            return plain(name, **options)(looking)

        return made

    steps.step = mortal


def kill_at_store(name: str, edge: str) -> None:
    from registry.mlflow.store import Store

    whole = getattr(Store, name)

    def mortal(*args: Any, **kwargs: Any) -> None:
        if edge == "after":
            whole(*args, **kwargs)
        die()

    setattr(Store, name, mortal)


def main() -> None:
    sys.path.pop(0)  # this folder, whose modules are nobody's top level
    from flows import engine

    file = Path(os.environ[ORDERS]) / os.environ["PREFECT__FLOW_RUN_ID"]
    if file.exists():
        engine.prepare()  # first, since obeying imports Prefect
        obey(json.loads(file.read_text(encoding="utf-8")))
    engine.main()


if __name__ == "__main__":
    main()
