"""Prefect's server, asked: its client, and its faults as errors of ours, in one line each."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterEndTime,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectException

from components.errors import SetupError, StoreUnavailable, sanitized
from components.redaction import public

PAGE = 200  # Prefect's limit
_log = logging.getLogger("preface.prefect_server")


@contextmanager
def asking() -> Iterator[SyncPrefectClient]:
    """A client of the server that PREFECT_API_URL names.

    Raises:
        StoreUnavailable: the server does not answer, answers that something in it failed, or what it was asked about
            was changed by somebody else meanwhile.
        SetupError: it refuses what it was asked, or the address is none of a Prefect server.
    """
    url = sanitized(public(os.environ.get("PREFECT_API_URL", "no address")))
    try:
        with get_client(sync_client=True) as client:
            _require_prefect(client, url)
            yield client
    except httpx.HTTPStatusError as error:
        answer = (
            f"Prefect at {url} answered {error.response.status_code}: {' '.join(error.response.text.split())[:300]}"
        )
        if error.response.status_code in (401, 403):
            raise SetupError(f"{answer}; set PREFECT_API_KEY or PREFECT_API_AUTH_STRING") from error
        raise (StoreUnavailable if error.response.status_code >= 500 else SetupError)(answer) from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise SetupError(
            f"PREFECT_API_URL={url} is no address of a server ({sanitized(str(error))}); write http://HOST:4200/api"
        ) from error
    except (httpx.HTTPError, OSError) as error:
        raise StoreUnavailable(
            f"Prefect at {url} does not answer ({type(error).__name__}: {error}); is it running? (PREFECT_API_URL)"
        ) from error
    except PrefectException as error:
        raise StoreUnavailable(f"Prefect at {url}: {type(error).__name__}: {error}") from error


def _require_prefect(client: SyncPrefectClient, url: str) -> None:
    """See that Prefect's server answers there, in a version that is understood; a process asks it once."""
    try:
        client.raise_for_api_version_mismatch_once()
    except RuntimeError as error:  # Prefect's own, around what went wrong
        cause = error.__cause__
        if isinstance(cause, httpx.HTTPError | httpx.InvalidURL | OSError):
            raise cause from None
        raise SetupError(
            f"what answers at {url} is no Prefect server of this version ({sanitized(str(cause or error))}); write"
            " http://HOST:4200/api into PREFECT_API_URL, or unset it"
        ) from error


@contextmanager
def best_effort(what: str) -> Iterator[None]:
    """What stands inside is nice to have: a server that is away costs a warning and nothing else."""
    try:
        yield
    except (httpx.HTTPError, OSError, PrefectException) as error:
        _log.warning("%s: Prefect's server did not take it (%s: %s)", what, type(error).__name__, error)


def runs_of(
    client: SyncPrefectClient,
    deployments: Sequence[UUID],
    states: Sequence[StateType],
    after: datetime | None = None,
    before: datetime | None = None,
    ended_after: datetime | None = None,
) -> list[FlowRun]:
    """The runs of some deployments in some states, that were to start between two moments, or that ended after one.

    All at once, and not as they are read: what is done about them takes them out of the states that are asked for.
    """
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=list(deployments)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))),
        expected_start_time=FlowRunFilterExpectedStartTime.model_validate({"after_": after, "before_": before}),
        end_time=FlowRunFilterEndTime.model_validate({"after_": ended_after}) if ended_after else None,
    )
    return pages_of(client, wanted)


def pages_of(client: SyncPrefectClient, wanted: FlowRunFilter, of: FlowFilter | None = None) -> list[FlowRun]:
    """Every run that fits, however many there are; of some flows only if they are named."""
    found: list[FlowRun] = []
    while page := client.read_flow_runs(
        flow_filter=of, flow_run_filter=wanted, sort=FlowRunSort.ID_DESC, limit=PAGE, offset=len(found)
    ):
        found += page
    return found
