"""Cancelling from inside: a training asks now and then whether somebody wants its run to stop.

A run that a worker started is stopped from outside, by a signal. One that a command runs in its own process is nobody's
child: Prefect marks it as cancelling and nothing more happens, unless it looks for itself. So is one whose worker was
killed.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from types import FrameType
from typing import TYPE_CHECKING, Self
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from components.errors import Stopped

if TYPE_CHECKING:
    from components.training.loop import Observe

SECONDS_BETWEEN, GRACE = 3.0, 5.0
_log = logging.getLogger("preface.cancellation")


class Watch:
    """Put around training's ``observe``: passes every figure on, and stops the training where its run is cancelled.

    It asks in a thread of its own, since a server that is away keeps whoever asks waiting; inside a ``with``.

    Raises:
        Stopped: from a call, where the run is being cancelled.
    """

    def __init__(self, observe: Observe) -> None:
        context = FlowRunContext.get()
        # A temporary server shows nobody a button to cancel with.
        self._run = context.flow_run.id if context and context.flow_run and "PREFECT_API_URL" in os.environ else None
        # A worker that lives is the one to stop it, and says afterwards that it was cancelled.
        self._grace = GRACE if "PREFECT__FLOW_RUN_ID" in os.environ else 0.0
        self._observe, self._over, self._cancelled = observe, threading.Event(), threading.Event()

    def __enter__(self) -> Self:
        if self._run is not None:
            # In this run's context, which says where its server is: a new thread has none.
            threading.Thread(target=copy_context().run, args=(self._ask, self._run), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def __call__(self, figures: dict[str, float], step: int) -> None:
        self._observe(figures, step)
        if self._cancelled.is_set():
            raise Stopped(f"cancelled at step {step}; the next run goes on from the last checkpoint")

    def _ask(self, run: UUID) -> None:
        while not self._over.wait(SECONDS_BETWEEN):
            if is_cancelled(run):
                self._over.wait(self._grace)
                self._cancelled.set()
                return


def check() -> None:
    """Between two long steps of a run that a command does in its own process.

    Raises:
        Stopped: somebody wants it to stop.
    """
    context = FlowRunContext.get()
    if context and context.flow_run and "PREFECT_API_URL" in os.environ and is_cancelled(context.flow_run.id):
        raise Stopped("cancelled; the next run goes on with what this one lacks")


def is_cancelled(run: UUID) -> bool:
    """Whether somebody wants the flow run to stop; a server that is away for a moment stops nothing."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run).state
    except Exception as error:
        _log.warning("could not ask whether the run is cancelled: %s", error)
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())


@contextmanager
def defer_sigterm() -> Iterator[None]:
    """What stands inside is done to its end: a SIGTERM that comes meanwhile is delivered after it.

    For the few calls that write down how a run ended; whoever sent the signal follows it by SIGKILL if they take long.
    Signals reach a process's main thread alone; any other one is undisturbed as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def later(number: int, _: FrameType | None) -> None:
        came.append(number)

    before = signal.signal(signal.SIGTERM, later)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
        if came:
            signal.raise_signal(signal.SIGTERM)
