"""A base upgrade: every task trained on another base, judged against its champion on the old one, promoted one by one.

What is done is read off the registry and params.yaml, so a campaign that was stopped goes on when it is asked for
again. A task's line in params.yaml follows its promotion: what is declared is always what the version in Production
needs, and the way back is one command. The rows are those that the champion is measured on.
"""

# No `from __future__ import annotations` here, as in retrain.py.

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from components.config import params as params_file
from components.config.params import Params
from components.config.params_edit import declare_base, redeclared
from components.errors import NotFound, NothingToRollBackTo, PrefaceError, PromotionRefused
from components.records import Record
from flows.fleet import Ended, campaign, outcomes_of
from flows.orchestration import deployments, events, run_logging
from flows.orchestration.deployments import POOL
from flows.run import bases
from registry import queries
from registry.mlflow.store import Store
from registry.protocol import Store as StoreProtocol
from registry.protocol import Version
from registry.releases import lifecycle, state


class Standing(Record):
    """Where one task stands: the base that params.yaml declares, and that of the version in Production."""

    task: str
    declared: str
    production: int | None
    on: str
    staged: int | None
    there: bool

    def row(self) -> dict[str, Any]:
        """For the table of progress."""
        where = "there" if self.there else "waits in Staging" if self.staged else "to do"
        return {"task": self.task, "declared": self.declared, "production": self.production, "on": self.on, "": where}


def standings(declared: Params, tasks: list[str], base: str) -> list[Standing]:
    """Where each task stands on its way to a base."""
    store, wanted, found = Store(), declared.bases[declared.base(base)].hash, []
    for task in tasks:
        try:
            seen = queries.status(store, task)
            live, staged = seen.production, seen.staging
        except NotFound:
            live = staged = None
        found.append(
            Standing(
                task=task,
                declared=declared.task(task).base,
                production=live.number if live else None,
                on=live.tag("base") if live else "",
                staged=staged.number if staged and staged.tag("base_hash") == wanted else None,
                there=live is not None and live.tag("base_hash") == wanted,
            )
        )
    return found


def settle(root: Path, task: str, base: str) -> str:
    """Promote what waits on the base, and let params.yaml say what is in Production; what was done, in words.

    Raises:
        PrefaceError: it may not be promoted, or params.yaml cannot be changed.
    """
    declared = params_file.load(root / "params.yaml")
    [standing] = standings(declared, [task], base)
    if not standing.there and standing.staged is None:
        raise PromotionRefused(
            f"{task} has no version on {base} that passed its gate; `preface show {task}@N` says why"
        )
    redeclared(root / "params.yaml", task, base)  # a line that cannot be changed is told before anything is promoted
    if not standing.there:
        moved = lifecycle.promote(
            Store(), task, standing.staged, reason=f"rebase to {base}", base_hash=declared.bases[base].hash
        )
        events.moved(moved)
        standing = standing.model_copy(update={"production": moved.version.number})
    declare_base(root / "params.yaml", task, base)
    return f"version {standing.production} on {base} is in Production"


@flow(name="rebase", flow_run_name="to {base}", persist_result=False)
def rebase(root: str, base: str, tasks: list[str], forced: list[str], pool: str = POOL) -> State[Any]:
    """Retrain tasks on another base and promote those that pass.

    Args:
        root: the folder of params.yaml.
        base: under bases in params.yaml.
        tasks: those that are not there yet.
        forced: those of them whose version on the base was judged against another champion than today's.
        pool: whose workers do it.
    """

    run_logging.begin()

    def done(ended: Ended) -> Ended:
        if ended.failed:
            return ended
        try:
            return ended.model_copy(update={"result": "Promoted", "message": settle(Path(root), ended.task, base)})
        except PrefaceError as error:
            return ended.model_copy(update={"result": "NotPromoted", "message": str(error), "failed": True})

    return campaign(root, tasks, forced, base, pool, "rebase", done)


def run(root: Path, base: str, tasks: list[str], pool: str, say: Callable[[list[Standing]], None]) -> list[Ended]:
    """Bring the tasks to the base; how each ended. Those that are there already are left alone.

    Args:
        say: gets where each task stands, before anything is done.
    """
    declared = params_file.load(root / "params.yaml")
    name = declared.base(base)
    bases.ensure(root, name, declared.bases[name])
    found = standings(declared, tasks, name)
    say(found)
    ended, left, stale = list[Ended](), list[str](), list[str]()
    for standing in found:
        task = standing.task
        if not standing.there and standing.staged is None:
            left.append(task)
            continue
        try:
            ended.append(Ended(task=task, result="Promoted", message=settle(root, task, name)))
        except PromotionRefused:
            stale.append(task)
        except PrefaceError as error:
            ended.append(Ended(task=task, result="NotPromoted", message=str(error), failed=True))
    if left := [*left, *stale]:
        deployments.sync(params_file.load(root / "params.yaml"), pool)
        ended += outcomes_of(rebase(str(root), name, left, stale, pool, return_state=True))
    return ended


def undo(root: Path, tasks: list[str], reason: str) -> list[Ended]:
    """Take tasks back to the version before, on the base that it needs; each by itself."""
    store, ended = Store(), []
    for task in tasks:
        try:
            ended.append(Ended(task=task, result="RolledBack", message=_back(store, root, task, reason)))
        except NothingToRollBackTo as error:
            ended.append(Ended(task=task, result="Left", message=str(error)))
        except PrefaceError as error:
            ended.append(Ended(task=task, result="Failed", message=str(error), failed=True))
    return ended


def _back(store: StoreProtocol, root: Path, task: str, reason: str) -> str:
    declared = params_file.load(root / "params.yaml")
    seen = state.read(store, task)
    head, live, now = seen.head, seen.live, declared.bases[declared.task(task).base].hash
    if head and live and head.action == "rollback" and live.tag("base_hash") != now:
        # Cut short after the version went back, and asked for again: what is left is the line in params.yaml.
        name = _declared_as(declared, live)
        declare_base(root / "params.yaml", task, name)
        return f"version {live.number} on {name} was in Production already; params.yaml says so again"
    target = seen.good_before()
    if head is None or target is None:
        raise NothingToRollBackTo(f"{task} has no good version before the one in Production")
    version = store.version(task, target)
    if version.tag("base_hash") == (live.tag("base_hash") if live else now):
        raise NothingToRollBackTo(
            f"the version before {task}@{head.version} is on the same base; `preface rollback {task}` goes there"
        )
    name = _declared_as(declared, version)
    redeclared(root / "params.yaml", task, name)  # as in ``settle``
    moved = lifecycle.rollback(store, task, target, reason=reason, base_hash=version.tag("base_hash"))
    events.moved(moved)
    declare_base(root / "params.yaml", task, name)
    return f"version {target} on {name} is in Production"


def _declared_as(declared: Params, version: Version) -> str:
    """The name that params.yaml has for the base of a version."""
    found = next((name for name, base in declared.bases.items() if base.hash == version.tag("base_hash")), None)
    if found is None:
        raise NotFound(
            f"{version.name} needs the base {version.tag('base')} ({version.tag('base_hash')}), which params.yaml does"
            " not declare any more; put it back under bases"
        )
    return found
