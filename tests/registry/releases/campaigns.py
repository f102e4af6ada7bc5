"""What is done to a registry whose processes are killed or overtaken, and what must hold of it afterwards.

``campaign`` and ``overtaken`` count what they did and say every violation in words; that there is none is asserted in
``test_killed.py``. The processes are those of ``mortal.py``.
"""

from __future__ import annotations

import itertools
import signal
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .mortal import Mortals

TASK, BY_HAND = "movie-sentiment", "moved by hand"
Step = tuple[str, dict[str, Any]]
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Operation:
    """What is killed, where it starts, and what may be told to who asks for it again."""

    name: str
    start: str
    step: Step
    told: tuple[str, ...] = ()


@dataclass
class Bench:
    """One store with its database, put back to a prepared state as often as needed."""

    mortals: Mortals
    uri: str
    database: Path
    folder: Path
    inputs: Mapping[str, Path]
    base_hash: str
    stages: bool = True
    runs: dict[str, str] = field(default_factory=dict)

    def ask(self, *steps: Step, **how: Any) -> dict[str, Any]:
        return self.mortals.ask(uri=self.uri, task=TASK, stages=self.stages, steps=steps, **how)

    def see(self) -> Facts:
        """What the store holds, nothing mended."""
        return dict(self.ask(("facts", {}))["said"][0])

    def keep(self, name: str) -> None:
        _copy(self.database, self.folder / f"{name}.db")

    def put_back(self, name: str) -> None:
        """Let the store be as it was kept; made and kept first if it never was."""
        if not (self.folder / f"{name}.db").exists():
            before, steps = STARTS[name]
            if before:
                self.put_back(before)
            for said in self.ask(*map(self.given, steps), ("start_run", {}))["said"]:
                assert "error" not in said, said
                self.runs[name] = said.get("run", "")
            self.keep(name)
        _copy(self.folder / f"{name}.db", self.database)

    def leave(self, name: str, start: str, step: Step, at: int) -> str:
        """Keep what is left if a step is killed before its ``at``-th write."""
        self.put_back(start)
        assert self.ask(self.given(step, start), at=at, signal=signal.SIGKILL, writes=True)["end"] == "killed"
        self.keep(name)
        return name

    def given(self, step: Step, start: str = "") -> Step:
        """A step with the names of its inputs made paths, and what every caller gives."""
        name, given = step
        more: dict[str, Any] = {key: self.inputs[value] for key, value in given.items() if key in ("adapter", "report")}
        if name in ("promote", "rollback", "adopt"):
            more["base_hash"] = self.base_hash
        if name == "register" and start:
            more["run"] = self.runs[start]
        return name, given | more


def _copy(source: Path, to: Path) -> None:
    """As a transaction of SQLite's own: a server may have either open."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(to)) as new:
        new.execute("PRAGMA synchronous = OFF")
        old.backup(new)


def register(adapter: int, passed: bool = True, champion: int | None = None) -> Step:
    return "register", {"adapter": f"adapter {adapter}", "report": report(passed, champion)}


def judge(number: int, passed: bool, champion: int | None = None) -> Step:
    return "judge", {"number": number, "report": report(passed, champion)}


def promote(number: int, **given: Any) -> Step:
    return "promote", {"number": number, **given}


def report(passed: bool, champion: int | None) -> str:
    return f"{'passed' if passed else 'refused'} against {champion}"


STARTS: dict[str, tuple[str, list[Step]]] = {
    "empty": ("", []),
    "refused": ("empty", [register(1, passed=False)]),
    "staged": ("empty", [register(1)]),
    "two": ("staged", [promote(1), register(2, champion=1), promote(2)]),
    "lively": ("two", [register(3, champion=2), register(4, champion=2)]),
    BY_HAND: ("lively", [("by_hand", {"number": 4})]),
}
OPERATIONS = [
    Operation("register the first", "empty", register(1)),
    Operation("register a pass", "lively", register(5, champion=2)),
    Operation("register a refusal", "lively", register(5, passed=False, champion=2)),
    Operation("register a duplicate", "lively", register(3, champion=2)),
    Operation("evaluate: refused, an older one waits", "lively", judge(4, passed=False, champion=2)),
    Operation("evaluate: refused, nobody waits", "staged", judge(1, passed=False)),
    Operation("evaluate: passed", "refused", judge(1, passed=True)),
    Operation("promote the first", "staged", promote(1)),
    Operation("promote", "lively", promote(4)),
    Operation("roll back", "lively", ("rollback", {"upon": 2}), told=("PromotionConflict",)),
    Operation("roll back to a version", "lively", ("rollback", {"to": 1})),
    Operation("adopt", BY_HAND, ("adopt", {}), told=("RegistryError",)),
    Operation("restore", BY_HAND, ("restore", {})),
]
REFUSALS = ("PromotionConflict", "PromotionRefused", "NothingToRollBackTo")
NAMED = {operation.name: operation for operation in OPERATIONS}


# --- what must hold ---------------------------------------------------------------------------------------------------


def faults(facts: Facts) -> list[str]:
    """In what the store does not agree with its log and its gates."""
    if not facts:
        return []
    head, line = facts["head"], [version for _, version, void, _ in facts["log"] if not void]
    found = [f"{what}: {facts[what]}" for what in ("unsettled", "pending") if facts[what]]
    found += [f"entry {number} is broken" for number, entry in enumerate(facts["log"], 1) if entry[3]]
    if not facts["projected"]:
        found.append("the projected tag is behind")
    passed = {int(number) for number, verdict in facts["verdicts"].items() if verdict == "passed"}
    waiting = passed - set(facts["duplicates"]) - set(line)
    staged = facts["aliases"].get("staging")
    if max(waiting, default=0) > max(line, default=0) and staged != max(waiting):
        found.append(f"{max(waiting)} passed and is newer than all, in Staging is {staged}")
    if staged not in {None, *waiting}:
        found.append(f"{staged} waits in Staging, which could be {waiting}")
    on = any(stage != "None" for stage in facts["stages"].values())
    for stage, wanted in (("Production", head), ("Staging", staged)):
        at = [int(number) for number, stands in facts["stages"].items() if stands == stage]
        if on and at != [wanted][: wanted is not None]:
            found.append(f"stage {stage} holds {at}, not {wanted}")
    if facts["aliases"].get("production") != head:
        found.append(f"alias production is {facts['aliases'].get('production')}, not {head}")
    return found


def looked(status: Mapping[str, Any], facts: Facts) -> list[str]:
    """In what somebody who looks is told otherwise than all is well."""
    if status.get("error") == "NotFound" and not facts:
        return []
    told = [status.get("error"), status.get("drift"), *status.get("faults", ())]
    return [*(f"told: {each}" for each in told if each), *faults(facts)]


def campaign(
    bench: Bench, operation: Operation, allowed: list[Facts] | None = None, writes: bool = True, plant: str = ""
) -> tuple[int, list[str]]:
    """Kill the operation before every call, look, ask for it again, look again.

    Args:
        allowed: what the store may hold after the next command: by default the state before, and that after.

    Returns:
        How many were killed, and every violation.
    """
    look: tuple[Step, ...] = (("status", {}), ("facts", {}))
    bench.put_back(operation.start)
    step, before = bench.given(operation.step, operation.start), bench.see()
    *_, after = bench.ask(step, *look)["said"]
    found = [f"{operation.name}, left alone: {each}" for each in faults(after)]
    for at in itertools.count(1):
        bench.put_back(operation.start)
        if bench.ask(step, at=at, signal=signal.SIGKILL, writes=writes, plant=plant)["end"] == "done":
            return at - 1, found
        status, facts, answer, status_after, facts_after = bench.ask(*look, step, *look)["said"]
        # Drift that was there before is still to be told; an operation that began makes none.
        wrong = [] if operation.start == BY_HAND and facts == before else looked(status, facts)
        if facts not in (allowed or [before, after]):
            wrong.append(f"neither before nor after: {_unlike(facts, before, after)}")
        if "error" in answer and (answer["error"] not in operation.told or facts != after):
            wrong.append(f"asked again it says {answer}")
        if facts_after != after:
            wrong.append(f"done again it left {_unlike(facts_after, after)}")
        wrong += looked(status_after, facts_after)
        found += [f"{operation.name}, killed before call {at}: {each}" for each in wrong]
    raise AssertionError


def overtaken(
    bench: Bench,
    start: str,
    slow: Step,
    quick: list[Step],
    killed: bool,
    gap: int = 1,
    writes: bool = True,
    plant: str = "",
) -> tuple[int, list[str]]:
    """Stop a process before every call in turn, let another run to its end, and wake the first.

    Args:
        killed: it dies ``gap`` calls later, and somebody looks; else it goes on to its end, and nobody does.

    Returns:
        How many were stopped, and every violation.
    """
    found: list[str] = []
    for at in itertools.count(1):
        bench.put_back(start)
        then = signal.SIGKILL if killed else 0
        stopped = bench.ask(
            bench.given(slow, start), at=at, signal=signal.SIGSTOP, then=then, gap=gap, writes=writes, plant=plant
        )
        if stopped["end"] == "done":
            return at - 1, found
        said = bench.ask(*(bench.given(step, start) for step in quick), plant=plant)["said"]
        said += bench.mortals.ask(go_on=stopped["pid"])["said"]
        wrong = [f"told {each}" for each in said if each.get("error", "PromotionConflict") not in REFUSALS]
        status = bench.ask(("status", {}))["said"][0] if killed else {}
        wrong += looked(status, bench.see())
        found += [f"{slow} stopped before call {at}, {quick} overtook it: {each}" for each in wrong]
    raise AssertionError


def _unlike(facts: Facts, *others: Facts) -> dict[str, Any]:
    """What is said otherwise than by all of the others, beside what they say."""
    said = {key: [value, *(other.get(key) for other in others)] for key, value in facts.items()}
    return {key: values for key, values in said.items() if any(value != values[0] for value in values)}


def repaired_and_killed(bench: Bench, name: str, cuts: Iterable[int], writes: bool) -> tuple[int, list[str]]:
    """Kill an operation, and then whoever looks, before each of that one's calls."""
    times, found, operation = 0, [], NAMED[name]
    bench.put_back(operation.start)
    *_, whole = bench.ask(bench.given(operation.step, operation.start), ("facts", {}))["said"]
    for at in cuts:
        left = bench.leave(f"{name} cut at {at}", operation.start, operation.step, at)
        killed, wrong = campaign(bench, Operation(f"look after {left}", left, ("status", {})), [whole], writes)
        times, found = times + killed, found + wrong
    return times, found
