"""Figures reach the store in bundles, and a store that is away for a while costs neither the training nor a figure."""

from __future__ import annotations

import logging

import pytest

from components.errors import Diverged, StoreUnavailable
from flows.run import metric_log
from flows.run.metric_log import MetricLog


class Store:
    """Keeps each bundle; away while ``away`` is set."""

    def __init__(self) -> None:
        self.away = False
        self.bundles: list[list[tuple[str, float, int]]] = []

    def log_metrics(self, run_id: str, metrics: list[tuple[str, float, int]]) -> None:
        assert run_id == "run-1"
        if self.away:
            raise StoreUnavailable("no answer from the tracking store")
        self.bundles.append(list(metrics))

    @property
    def kept(self) -> list[tuple[str, float, int]]:
        return [figure for bundle in self.bundles for figure in bundle]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_log, "SECONDS_BETWEEN", 0.0)


def test_many_steps_are_one_call(store: Store) -> None:
    with MetricLog(store, "run-1") as observe:
        for step in range(100):
            observe({"loss": 1.0 / (step + 1), "rate": 0.5}, step)
    assert len(store.bundles) == 1
    assert store.kept == [figure for s in range(100) for figure in (("loss", 1.0 / (s + 1), s), ("rate", 0.5, s))]


@pytest.mark.usefixtures("often")
def test_a_long_training_sends_on_the_way_and_nothing_twice(store: Store) -> None:
    with MetricLog(store, "run-1") as observe:
        for step in range(3):
            observe({"loss": 0.5}, step)
            assert store.kept[-1] == ("loss", 0.5, step)
    assert [len(bundle) for bundle in store.bundles] == [1, 1, 1]


@pytest.mark.usefixtures("often")
def test_a_store_that_comes_back_gets_every_figure(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), MetricLog(store, "run-1") as observe:
        store.away = True
        observe({"loss": 3.0}, 1)
        observe({"loss": 2.0}, 2)
        store.away = False
        observe({"loss": 1.0}, 3)
    assert store.kept == [("loss", 3.0, 1), ("loss", 2.0, 2), ("loss", 1.0, 3)]
    assert "figures wait for the tracking store: no answer" in caplog.text


def test_a_store_that_is_away_is_not_asked_at_every_step(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [0.0], [0]
    monkeypatch.setattr(metric_log.time, "monotonic", lambda: now[0])

    def refuse(run_id: str, metrics: list[tuple[str, float, int]]) -> None:
        asked[0] += 1
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(store, "log_metrics", refuse)
    observe = MetricLog(store, "run-1")
    for step in range(20):
        now[0] = float(step)
        observe({"loss": 0.5}, step)
    assert asked[0] == 3  # at 5, 10 and 15 seconds


def test_a_store_that_is_still_away_at_the_end_is_an_error(store: Store) -> None:
    store.away = True
    with pytest.raises(StoreUnavailable, match="no answer"), MetricLog(store, "run-1") as observe:
        observe({"loss": 0.5}, 1)


def diverge(store: Store) -> None:
    with MetricLog(store, "run-1") as observe:
        observe({"loss": 0.5}, 1)
        raise Diverged("loss is nan")


def test_but_it_does_not_hide_why_the_training_stopped(store: Store) -> None:
    store.away = True
    with pytest.raises(Diverged, match="loss is nan"):
        diverge(store)


def test_a_training_that_stopped_leaves_its_figures_too(store: Store) -> None:
    with pytest.raises(Diverged):
        diverge(store)
    assert store.kept == [("loss", 0.5, 1)]


def test_no_figures_no_call(store: Store) -> None:
    with MetricLog(store, "run-1"):
        pass
    assert store.bundles == []
