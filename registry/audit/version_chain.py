"""The chain of a version: bytes, run, rows, base, code, gate report, releases. Each link holds, or says why not.

A link is what one place says and every other must repeat. Tags can be edited, runs deleted, files written over: what
manifest, run, gate report and release log say of one thing has to agree. What only this machine lacks is told and is no
fault, with two exceptions: the base of what is in Production, and a commit that a whole checkout does not have.
Nothing is moved or mended here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from components.errors import PrefaceError, sanitized
from registry.artifact.manifest import Manifest, trained_fingerprint
from registry.audit.local_environment import LocalEnvironment
from registry.audit.patience import Asking
from registry.protocol import Gate, Run, Store, Version, report_digest
from registry.release_log import PREFIX, Release, count
from registry.releases import checks, drill_receipts
from registry.releases.state import State


@dataclass(frozen=True)
class Link:
    """One link: what it is, and what is wrong with it. ``asked`` is False where a store was given up on before."""

    name: str
    value: str
    fault: str = ""
    asked: bool = True


def links(
    store: Store, version: Version, state: State, here: LocalEnvironment, asking: Asking | None = None
) -> list[Link]:
    """Every link of the version's chain. What cannot be read is a link's fault and keeps no other from being read.

    Args:
        state: of the version's task.
        asking: shared by all versions of a walk.
    """
    asking = asking or Asking()
    adapter, said = _adapter(store, version, asking)
    run, recorded = _run(store, version, asking)
    return [
        adapter,
        _method(version, said),
        _metrics(version, said),
        run,
        _fingerprint(version, said, recorded, state),
        _rows(version, said, recorded),
        _base(version, said, state, here),
        _commit(version, said, here),
        *_evidence(store, version, state, asking),
        _drill(version),
    ]


def _adapter(store: Store, version: Version, asking: Asking) -> tuple[Link, Manifest | None]:
    """The bytes, and the manifest if it can be believed."""
    name, value, asked = "adapter", version.tag("manifest_digest"), not asking.artifacts.spent
    try:
        return Link(name, value), asking.artifacts.ask(lambda: checks.verify(store, version)).manifest
    except PrefaceError as error:
        return Link(name, value, str(error), asked), None


def _run(store: Store, version: Version, asking: Asking) -> tuple[Link, Run | None]:
    if not version.run_id:
        return Link("run", "", "the version names no run"), None
    asked = not asking.tracking.spent
    try:
        run = asking.tracking.ask(lambda: store.run(version.run_id))
    except PrefaceError as error:
        return Link("run", version.run_id, str(error), asked), None
    gone = "the run was deleted, and its gate report goes with it: restore it in MLflow" if run.deleted else ""
    return Link("run", f"{version.run_id} {run.status}", gone), run


def _method(version: Version, said: Manifest | None) -> Link:
    return Link("method", version.tag("method"), _differs(version, "method", said.method) if said else "")


def _metrics(version: Version, said: Manifest | None) -> Link:
    """Tags keep six digits of what the manifest has."""
    prefix = f"{PREFIX}metric."
    tags = {key.removeprefix(prefix): value for key, value in version.tags.items() if key.startswith(prefix)}
    expected = {name: f"{value:.6g}" for name, value in said.metrics.items()} if said else tags
    faults = [
        f"the tag {prefix}{name} says {tags.get(name, '(nothing)')}, the manifest {expected.get(name, '(nothing)')}"
        for name in sorted({*tags, *expected})
        if not _same(tags.get(name), expected.get(name))
    ]
    return Link("metrics", ", ".join(f"{name} {value}" for name, value in sorted(tags.items())), "; ".join(faults))


def _same(tag: str | None, expected: str | None) -> bool:
    if tag is None or expected is None:
        return False
    try:
        return math.isclose(float(tag), float(expected))
    except ValueError:
        return False


def _fingerprint(version: Version, said: Manifest | None, run: Run | None, state: State) -> Link:
    """The tag, the manifest, the run and what the manifest's own facts make; and whoever else has the same."""
    value, faults = version.tag("fingerprint"), []
    if said:
        faults.append(_differs(version, "fingerprint", said.fingerprint))
        made = trained_fingerprint(said)
        if made not in (None, said.fingerprint):
            faults.append(f"the manifest's base, rows, wording and settings make {made}, it says {said.fingerprint}")
    if run and run.tags.get(f"{PREFIX}fingerprint") != value:
        faults.append(f"its run was started for {run.tags.get(f'{PREFIX}fingerprint') or '(nothing)'}")
    faults.append(_repeats(version, state))
    return Link("fingerprint", value, "; ".join(filter(None, faults)))


def _repeats(version: Version, state: State) -> str:
    """What is wrong with how a second version of one fingerprint is marked."""
    mark = version.tag("duplicate_of")
    number = count(mark)
    first = None if number is None else state.get(number)
    if mark and (first is None or first.tag("fingerprint") != version.tag("fingerprint")):
        return (
            f"it is marked as repeating version {sanitized(mark)}, which {'is another' if first else 'does not exist'}"
        )
    alike = [v.number for v in state.versions if v.ready and v.tag("fingerprint") == version.tag("fingerprint")]
    settled = version.ready and version.tag("settled") == version.tag("gate")
    if settled and not mark and not version.tag("forced") and alike and alike[0] < version.number:
        return f"it repeats version {alike[0]} and is not marked so"
    return ""


def _rows(version: Version, said: Manifest | None, run: Run | None) -> Link:
    """The content's hash, and DVC's name for it in three places: tag, lock entry, run."""
    md5, faults = version.tag("dvc_md5"), []
    if said:
        faults.append(_differs(version, "data_hash", said.data.hash))
        locked = locked_md5(said)
        # What came from elsewhere was trained on rows that DVC never saw.
        if locked != md5 and (locked or said.recipe is not None):
            faults.append(f"{_tag(version, 'dvc_md5')}, the manifest's lock entry {locked or '(nothing)'}")
    if run and md5 and md5 not in run.datasets:
        faults.append(f"{_tag(version, 'dvc_md5')}, its run used {', '.join(run.datasets) or '(nothing)'}")
    return Link("data", f"{version.tag('data_hash')}, DVC {md5 or '(none)'}", "; ".join(filter(None, faults)))


def locked_md5(said: Manifest) -> str:
    """DVC's name for the prepared rows by the manifest's lock entry, empty if that has none."""
    try:
        return str(said.data.lock[f"prepare@{said.task}"]["outs"][0]["md5"])  # type: ignore[index,call-overload]
    except (KeyError, IndexError, TypeError):
        return ""


def _base(version: Version, said: Manifest | None, state: State, here: LocalEnvironment) -> Link:
    """That the three digests make the hash was seen when the manifest was read."""
    base_hash, name = version.tag("base_hash"), version.tag("base")
    names, folder = here.names(base_hash), here.base_folder(base_hash, name)
    value = f"{name} {base_hash}"
    value += f", params.yaml: {', '.join(names) or 'not declared'}; {folder or 'not materialised here'}"
    if version.tag("declared_base"):
        value += f"; DECLARED by {version.tag('declared_base')}, not proven"
    faults = [_differs(version, "base", said.base.name), _differs(version, "base_hash", said.base.hash)] if said else []
    if state.head and state.head.version == version.number and not names and folder is None:
        faults.append("it is in Production, and its base is neither declared in params.yaml nor materialised here")
    return Link("base", value, "; ".join(filter(None, faults)))


def _commit(version: Version, said: Manifest | None, here: LocalEnvironment) -> Link:
    commit, faults = version.tag("git_commit"), []
    if said:
        faults.append(_differs(version, "git_commit", said.code.git_commit))
    known = here.has_commit(commit) if commit else None
    if known is False:
        faults.append("this checkout does not have it: `git fetch`, or it was never pushed")
    where = "" if not commit else " (in this checkout)" if known else " (no whole checkout here to look it up in)"
    value = f"{commit}{where}" if commit else "none recorded: it was trained outside a checkout"
    return Link("git commit", value, "; ".join(filter(None, faults)))


def _evidence(store: Store, version: Version, state: State, asking: Asking) -> Iterator[Link]:
    """The gate report that counts, and every release that put the version into Production on one."""
    kept: dict[Gate, tuple[bytes | None, str, bool]] = {}

    def report(gate: Gate) -> tuple[bytes | None, str, bool]:
        if gate not in kept:
            kept[gate] = _report(store, version, gate, asking)
        return kept[gate]

    raw, fault, asked = report(version.gate)
    faults, champion = [fault] if asked else [], checks.compared_with(raw) if raw else None
    if champion is not None and state.get(champion) is None:
        faults.append(f"it compared with version {champion}, which does not exist")
    if version.stage == "Staging" and version.gate.verdict != "passed":
        faults.append(f"it stands in Staging, its gate says {version.gate.verdict or 'nothing'}")
    yield _seen("gate report", str(version.gate).strip(), faults, "" if asked else fault)

    entries, faults, silence = [entry for entry in state.entries if entry.version == version.number], [], ""
    for entry in entries:
        gate = _gate_of(version, entry)
        _, fault, asked = report(gate)
        silence = silence if asked else fault
        # Somebody may have taken it upon them to promote what has no report.
        evidence = fault if asked and (gate.report or not entry.override) else ""
        faults += [f"release {entry.number}: {what}" for what in (*_release(version, entry), evidence) if what]
    numbers = ", ".join(str(entry.number) for entry in entries)
    yield _seen("releases", numbers or "never in Production", faults, silence)


def _seen(name: str, value: str, faults: list[str], silence: str) -> Link:
    """A link with what was found, or with why not all of it could be asked for."""
    found = "; ".join(filter(None, faults))
    return Link(name, value, found or silence, asked=bool(found) or not silence)


def _gate_of(version: Version, entry: Release) -> Gate:
    """What an entry says of the gate, read as the version's own is."""
    return replace(version, tags={f"{PREFIX}gate": entry.gate}).gate


def _report(store: Store, version: Version, gate: Gate, asking: Asking) -> tuple[bytes | None, str, bool]:
    """A gate report as it was recorded, or why it is not; and whether it was asked for."""
    if not gate.report:
        return None, "no gate report is recorded", True
    asked = not asking.artifacts.spent
    try:
        raw = asking.artifacts.ask(lambda: store.read_file(version.run_id, gate.report))
    except PrefaceError as error:
        return None, f"{gate.report}: {error}", asked
    if not gate.is_of(raw):
        return None, f"{gate.report} was changed: it has sha256 {report_digest(raw)}, recorded is {gate.sha256}", True
    if checks.verdict(raw) is not (gate.verdict == "passed"):
        return None, f"{gate.report} says passed: {checks.verdict(raw)}, recorded is {gate.verdict}", True
    return raw, "", True


def _release(version: Version, entry: Release) -> Iterator[str]:
    """In what an entry says otherwise than the version that it names."""
    if entry.digest != version.tag("manifest_digest"):
        yield (
            f"it put the adapter {entry.digest or '(none named)'} into Production, registered is"
            f" {version.tag('manifest_digest') or '(nothing)'}"
        )
    verdict = _gate_of(version, entry).verdict
    if verdict != "passed" and entry.action != "rollback" and not entry.override:
        yield f"its gate said {verdict or 'nothing'}, and nobody overrode that"


def _drill(version: Version) -> Link:
    """The last drill's receipt; one that is old is no fault, one that cannot be this version's is."""
    receipt, (drill, unfit) = drill_receipts.find(version), drill_receipts.valid_receipt(version)
    if not version.tag("drill"):
        return Link("drill", "none")
    if receipt is None:
        return Link("drill", "", "its receipt cannot be read: `preface drill` leaves a new one")
    return Link("drill", drill or unfit, "" if receipt.is_of(version) else unfit)


def _differs(version: Version, key: str, expected: str) -> str:
    """How a tag says otherwise than the manifest; empty if it does not."""
    return "" if version.tag(key) == expected else f"{_tag(version, key)}, the manifest {expected or '(nothing)'}"


def _tag(version: Version, key: str) -> str:
    return f"the tag {PREFIX}{key} says {version.tag(key) or '(nothing)'}"
