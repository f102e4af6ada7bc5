"""What reproducing a version came to: the circumstances then and now, the verdict, and how both are shown. Pure."""

from __future__ import annotations

from components.config.params import MethodName
from components.records import Record


class Fact(Record):
    """One circumstance of the two trainings. shapes: it can change an adapter, and not its scores alone."""

    name: str
    then: str
    now: str
    shapes: bool

    @property
    def same(self) -> bool:
        return self.then == self.now


class Metric(Record):
    """One metric on the test split, as the manifest has it and of the new adapter, and how far apart they may be."""

    name: str
    then: float
    now: float
    tolerance: float

    @property
    def within(self) -> bool:
        return abs(self.now - self.then) <= self.tolerance


class Reproduction(Record):
    """What came out. largest: the largest difference of two values; metrics: none where there is no difference."""

    address: str
    method: MethodName
    identical: bool
    largest: float
    facts: list[Fact]
    metrics: list[Metric]
    test_rows: int
    commits: tuple[str, str]

    @property
    def differences(self) -> list[Fact]:
        """Circumstances that are not what they were."""
        return [fact for fact in self.facts if not fact.same]

    @property
    def promised(self) -> bool:
        """Whether the same bits must come out: all that shapes an adapter is as it was, on a processor that adds up
        in a fixed order, which a GPU does not."""
        on_gpu = any(fact.name == "device" and fact.now != "cpu" for fact in self.facts)
        return not on_gpu and all(fact.same for fact in self.facts if fact.shapes)

    @property
    def holds(self) -> bool:
        """Identical; or, where that cannot be promised, as good in every metric."""
        return self.identical or (not self.promised and all(metric.within for metric in self.metrics))

    @property
    def message(self) -> str:
        """The verdict in one line."""
        named = ", ".join(f"{fact.name} was {fact.then} and is {fact.now}" for fact in self.differences)
        if self.identical:
            return f"{self.address} trained again is identical bit by bit" + (f", although {named}" if named else "")
        far = [f"{m.name} {m.now:.4f} instead of {m.then:.4f}" for m in self.metrics if not m.within]
        scores = (
            f"{', '.join(far)}: more than {self.test_rows} test rows leave to chance"
            if far
            else f"every metric is within what {self.test_rows} test rows leave to chance"
        )
        what = f"{self.address} trained again is NOT identical (values differ by up to {self.largest:.3g})"
        if not self.promised:
            return f"{what}, which nobody promised ({named or 'it was trained on a GPU'}); {scores}"
        then, now = (commit[:12] or "no commit" for commit in self.commits)
        return (
            f"{what} although processor, threads and library versions are the same; {scores}. Either the code gives"
            f" another adapter now ({then} then, {now} now) and RECIPE was not raised"
            " (components/provenance/fingerprint.py), or a machine computed wrongly: reproduce it at that commit, and"
            " on another machine"
        )


def rows(found: Reproduction) -> list[dict[str, object]]:
    """What a table of it shows: the adapter, each metric, each circumstance."""
    differ = f"differs by up to {found.largest:.3g}"
    shown: list[dict[str, object]] = [
        {"what": "adapter", "then": None, "now": None, "result": "identical" if found.identical else differ}
    ]
    for metric in found.metrics:
        result = f"{'within' if metric.within else 'NOT within'} {metric.tolerance:.4f}"
        shown.append({"what": metric.name, "then": metric.then, "now": metric.now, "result": result})
    for fact in found.facts:
        result = "same" if fact.same else "differs" if fact.shapes else "differs, which changes scores alone"
        shown.append({"what": fact.name, "then": fact.then, "now": fact.now, "result": result})
    return shown
