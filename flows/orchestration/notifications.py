"""Who is told of what a person should know: Prefect automations that send to a notification block of Prefect's.

Slack, e-mail, Teams, PagerDuty, any webhook: the block is made with Prefect's own means and holds the secrets. Here are
only the automations, and what they say.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from components.errors import SetupError
from flows.orchestration import events as announce
from flows.orchestration.prefect_api import asking

PREFIX = "preface: "
FLOWS = ["retrain", "fleet", "rebase", "evaluate", "import", "compare", "drill"]
_OURS = {"match_related": {"prefect.resource.role": "flow", "prefect.resource.name": FLOWS}}
_RUNS = {"match": {"prefect.resource.id": "prefect.flow-run.*"}, **_OURS}
_TASKS = {"match": {"prefect.resource.id": f"{announce.RESOURCE}*"}}
_RUN_SAYS = (
    "{{ flow.name }} of {{ flow_run.name }}: {{ flow_run.state.name }}\n{{ flow_run.state.message }}\n"
    "{{ flow_run|ui_url }}"
)
_MOVE_SAYS = (
    "{{ event.payload.task }}: version {{ event.payload.version }} is in Production"
    " (before: {{ event.payload.previous or 'none' }})\nby {{ event.payload.by }}: {{ event.payload.reason }}"
    "{% if event.payload.override %}\nOVERRIDDEN: {{ event.payload.override }}{% endif %}"
)
# What happened, the events that say so, on what, and what a person reads.
KINDS: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "gate refused": (["prefect.flow-run.GateRefused"], _RUNS, _RUN_SAYS),
    # A crashed run is started again by itself; one that is given up is told by an event of ours.
    "run failed": (
        [f"prefect.flow-run.{name}" for name in ("Failed", "SomeFailed", "DrillFailed", "TimedOut", "Alert")],
        _RUNS,
        _RUN_SAYS,
    ),
    "given up": ([announce.GIVEN_UP], _TASKS, "{{ event.payload.task }}: {{ event.payload.what }}"),
    "promotion": ([announce.PROMOTION], _TASKS, _MOVE_SAYS),
    "rollback": ([announce.ROLLBACK], _TASKS, _MOVE_SAYS),
}


def sync(block: str) -> list[dict[str, str]]:
    """Make the automations, or point those that are there at another block; which they are.

    Args:
        block: TYPE/NAME as in `prefect block ls`, e.g. slack-webhook/on-call.

    Raises:
        SetupError: there is no such block.
    """
    with asking() as client:
        document = _block(client, block)
        for kind in KINDS:
            automation = _automation(kind, document)
            there = client.read_automations_by_name(automation.name)
            for one in there[:1]:
                client.update_automation(one.id, automation)
            for one in there[1:]:
                client.delete_automation(one.id)
            if not there:
                client.create_automation(automation)
    return [{"told of": kind, "by": block} for kind in KINDS]


def _automation(kind: str, block: UUID) -> AutomationCore:
    events, match, says = KINDS[kind]
    trigger = EventTrigger(
        expect=set(events),
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
        **match,
    )
    action = SendNotification(block_document_id=block, subject=f"{PREFIX}{kind}", body=says)
    return AutomationCore(name=f"{PREFIX}{kind}", trigger=trigger, actions=[action])


def _block(client: SyncPrefectClient, block: str) -> UUID:
    kind, _, name = block.partition("/")
    try:
        return client.read_block_document_by_name(name, kind).id
    except ObjectNotFound as error:
        raise SetupError(
            f"Prefect has no block {block!r}; `prefect block ls` lists them, and its page under Blocks makes one"
            " (slack-webhook, sendgrid-email, custom-webhook, ...)"
        ) from error
