"""`preface compare TASK`: every arm on the same rows, kept as it comes, shown as a table, a page and a picture."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.errors import NotFound, Stopped, UnsupportedBase
from components.evaluation import arms
from flows import compare_methods
from flows.orchestration import cancellation

pytestmark = pytest.mark.flow
Project = Any  # tests/flows/conftest.py; test modules are not packages
ARMS = ["hard_prompt", "prefix", "lora"]


def test_arms_are_set_beside_each_other(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = compare_methods.run(project.root, "film", ARMS)

    assert [row["arm"] for row in shown.rows] == ARMS
    assert [row["base weights"] for row in shown.rows] == ["unchanged"] * 3
    assert project.kept() == set(), "rows that were placed for it are gone"
    folder = shown.page.parent
    assert {"compare.md", "compare.json", "compare.png", "prefix.json", "lora.json", "hard_prompt.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert (folder / "compare.png").read_bytes().startswith(b"\x89PNG")
    page = shown.page.read_text(encoding="utf-8")
    assert all(f"| {arm} |" in page for arm in ARMS)
    [run] = project.mlflow_runs()
    assert run.info.status == "FINISHED"
    kept = json.loads(project.store.read_file(run.info.run_id, "compare/compare.json"))
    assert [arm["arm"] for arm in kept["arms"]] == ARMS
    assert run.data.metrics["lora/accuracy"] == kept["arms"][2]["scored"]["metrics"]["accuracy"]
    with pytest.raises(Exception, match="film"):  # nothing is registered
        project.store.versions("film")

    # What is known is not trained again.
    monkeypatch.setattr(arms, "trained", lambda *_: pytest.fail("it trained"))
    monkeypatch.setattr(arms, "untrained", lambda *_: pytest.fail("it asked"))
    assert compare_methods.run(project.root, "film", ["prefix", "lora"]).rows == shown.rows[1:]


def test_an_arm_that_the_base_cannot_have_leaves_the_others_theirs(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says why; asked again it is not tried again. Settings of the task alone are no reason."""
    project.change("tasks.film.prefix.init", "random")

    def none(*_: Any) -> None:
        raise UnsupportedBase("it has no such module")

    monkeypatch.setattr(arms, "change", none)

    for _ in range(2):
        lora, upper = compare_methods.run(project.root, "film", ["upper_prefix", "lora"]).rows[::-1]
        assert (lora["arm"], lora["choice"]) == ("lora", "it has no such module")
        assert upper["arm"] == "upper_prefix"
        assert upper["training"] != "-"


def test_a_comparison_that_was_stopped_goes_on(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = arms.trained, []

    def stopped(bare: Any, folder: Any, name: str, *rest: Any, **more: Any) -> Any:
        calls.append(name)
        if len(calls) == 2:
            raise RuntimeError("the plug was pulled")
        return real(bare, folder, name, *rest, **more)

    monkeypatch.setattr(arms, "trained", stopped)
    with pytest.raises(RuntimeError, match="plug"):
        compare_methods.run(project.root, "film", ["prompt", "ia3"])

    assert [row["arm"] for row in compare_methods.run(project.root, "film", ["prompt", "ia3"]).rows] == [
        "prompt",
        "ia3",
    ]
    assert calls == ["prompt", "ia3", "ia3"]
    [run] = project.mlflow_runs()
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_cancelled_on_prefect_s_page_it_stops_amid_an_arm(
    project: Project, on_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And goes on with what it lacks when it is asked for again."""
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run
    from prefect.states import Cancelling

    for key, value in {"steps": 50_000, "patience": 1000}.items():
        project.change(f"tasks.film.prefix.training.{key}", value)
    monkeypatch.setattr(cancellation, "SECONDS_BETWEEN", 0.1)
    real = arms.train

    def cancelled(*given: Any, **more: Any) -> Any:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, Cancelling(), force=True)
        return real(*given, **more)

    monkeypatch.setattr(arms, "train", cancelled)
    with pytest.raises(Stopped, match=r"cancelled at step \d+"):
        compare_methods.run(project.root, "film", ["prefix", "lora"])

    with get_client(sync_client=True) as client:
        [run] = client.read_flow_runs(limit=1)
    assert run.state_name == "Cancelled"
    assert [each.info.status for each in project.mlflow_runs()] == ["KILLED"]


def test_an_arm_that_there_is_not_is_told_at_once(project: Project) -> None:
    with pytest.raises(NotFound, match="film has no arm 'lorra', did you mean 'lora'"):
        compare_methods.run(project.root, "film", ["lorra"])
    assert project.mlflow_runs() == []
