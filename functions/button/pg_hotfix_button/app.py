"""The Lambda function behind the dashboard's widget. It plans at every call, and applies only after a click.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_dashboard_about.html
"""

from __future__ import annotations

import functools
import logging
import os
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pg_hotfix_button.executions import (
    LOOKED_AT,
    Execution,
    OtherPlanError,
    describe,
    list_newest,
    read_steps,
    start_once,
    wait_until_ended,
)
from pg_hotfix_button.overview import Seen, show_overview
from pg_hotfix_button.parts import Viewer, show_notice
from pg_hotfix_button.progress import show_execution
from pg_hotfix_button.refusals import (
    RefusedError,
    explain,
    explain_unseen,
    lacks_setting,
    not_packaged,
    nothing_packaged,
    of_another_machine,
    other_plan,
    without_click,
    without_plan,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import tzinfo

    from aws_lambda_powertools.utilities.typing import LambdaContext
    from mypy_boto3_stepfunctions import SFNClient
    from mypy_boto3_stepfunctions.type_defs import ExecutionListItemTypeDef

    from pg_hotfix_button.markup import Html

logger = logging.getLogger("button")
logger.setLevel(logging.INFO)

DESCRIPTION = Path(__file__).with_name("describe.md")
# A cold function and a busy database need most of it, and a viewer would not wait for longer.
LOOK_SECONDS = 20.0
# An apply with nobody in its way ends within this time, and is shown as done at once.
APPLY_SECONDS = 6.0
# Kept free for the answer before Lambda's time-out.
RESERVED_SECONDS = 5.0
SHOWN_EXECUTIONS = 5
PLAN_HASH = re.compile(r"[0-9a-f]{64}")
# In a narrower widget a table would break every word.
NARROW_PIXELS = 520
# Plans and checks change nothing, and would fill the list.
READ_ONLY_NAMES = ("plan-", "check-")
# These may come only from a click, never from a dashboard's definition.
CLICKED_KEYS = {"action", "plan_hash"}


@dataclass(frozen=True)
class Settings:
    machine_arn: str
    environment: str
    sql_dir: Path


@functools.cache
def connect() -> SFNClient:
    # A late answer is of no use here, because the viewer refreshes.
    limits = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    return boto3.client("stepfunctions", config=limits)


def lambda_handler(event: object, context: LambdaContext) -> str:
    """HTML for the dashboard; a failure is a text in it, and one line in the log.

    An apply was started only if a click asked for it, with the hash of the plan that the viewer has seen. Any other
    call only plans.
    """
    asked = read_object(event)
    if asked.get("describe"):
        return DESCRIPTION.read_text()
    viewer = read_viewer(asked, context)
    try:
        return answer(asked, viewer, context).source
    except RefusedError as refusal:
        logger.warning("widget refused", extra={"refusal": str(refusal)})
        return show_notice(viewer, "Refused", str(refusal), refusal.hotfixes).source
    except Exception as error:
        text = explain(error, is_apply=is_apply(asked))
        logger.error("widget failed", extra={"advice": text}, exc_info=True)
        return show_notice(viewer, "Something is missing", text).source


def answer(event: Mapping[str, Any], viewer: Viewer, context: LambdaContext) -> Html:
    settings = read_settings(os.environ)
    if is_apply(event):
        return apply(event, viewer, settings)
    if event.get("execution"):
        return show(str(event["execution"]), viewer, settings)
    return look(event, viewer, settings, context.get_remaining_time_in_millis() / 1000)


# What the widget can be asked for


def look(event: Mapping[str, Any], viewer: Viewer, settings: Settings, remaining_seconds: float) -> Html:
    """The state of one hotfix. Nothing was changed. Viewers who refresh at the same time share one execution."""
    deadline = time.monotonic() + min(LOOK_SECONDS, remaining_seconds - RESERVED_SECONDS)
    hotfixes = list_hotfixes(settings.sql_dir)
    chosen = str(event.get("hotfix") or next(iter(hotfixes), ""))
    if not hotfixes:
        raise nothing_packaged(str(settings.sql_dir))
    if chosen not in hotfixes:
        raise not_packaged(chosen, hotfixes)
    client = connect()
    request = {"action": "plan", "hotfix": chosen, "reason": "dashboard refreshed"}
    arn = start_once(client, settings.machine_arn, request)
    newest = list_newest(client, settings.machine_arn)  # while the plan is running
    recent = read_recent(client, newest)
    searched = len(newest) if len(newest) == LOOKED_AT else None
    seen = wait_until_ended(client, arn, deadline - time.monotonic())
    steps = read_steps(client, arn) if seen.is_running else []
    return show_overview(viewer, Seen(hotfixes, chosen, seen, steps, recent, datetime.now(UTC), searched))


def apply(event: Mapping[str, Any], viewer: Viewer, settings: Settings) -> Html:
    """One apply of the plan that the viewer has seen runs, even if the button was clicked several times."""
    widget = read_object(event.get("widgetContext"))
    if not widget or CLICKED_KEYS & read_object(widget.get("params")).keys():
        raise without_click()
    hotfix, plan_hash = str(event.get("hotfix")), str(event.get("plan_hash"))
    hotfixes = list_hotfixes(settings.sql_dir)
    if hotfix not in hotfixes:
        raise not_packaged(hotfix, hotfixes)
    if not PLAN_HASH.fullmatch(plan_hash):
        raise without_plan()
    person = {key: viewer.typed.get(key) for key in ("reason", "requested_by")}
    request = {"action": "apply", "hotfix": hotfix, "plan_hash": plan_hash, **person}
    client = connect()
    try:
        arn = start_once(client, settings.machine_arn, request)
    except OtherPlanError as error:
        raise other_plan(error) from error
    logger.info("apply started", extra={"execution": arn, **request})
    try:
        wait_until_ended(client, arn, APPLY_SECONDS)
        return show(arn, viewer, settings)
    except (BotoCoreError, ClientError) as error:
        text = explain_unseen(error, arn)
        logger.error("widget failed", extra={"advice": text}, exc_info=True)
        return show_notice(viewer, "Started, progress not known", text)


def show(arn: str, viewer: Viewer, settings: Settings) -> Html:
    """The steps of that execution. Nothing was started."""
    if not arn.startswith(settings.machine_arn.replace(":stateMachine:", ":execution:") + ":"):
        raise of_another_machine(arn)
    client = connect()
    execution = describe(client, arn)
    return show_execution(viewer, execution, read_steps(client, arn), datetime.now(UTC))


# What it reads


def is_apply(event: Mapping[str, Any]) -> bool:
    return event.get("action") == "apply"


def read_settings(environment: Mapping[str, str]) -> Settings:
    for name in ("STATE_MACHINE_ARN", "ENVIRONMENT"):
        if not environment.get(name):
            raise lacks_setting(name)
    return Settings(
        environment["STATE_MACHINE_ARN"], environment["ENVIRONMENT"], Path(environment.get("SQL_DIR") or "/opt")
    )


def read_viewer(event: Mapping[str, Any], context: LambdaContext) -> Viewer:
    widget = read_object(event.get("widgetContext"))
    typed = read_object(read_object(widget.get("forms")).get("all"))
    return Viewer(
        context.invoked_function_arn,
        os.environ.get("ENVIRONMENT") or "unknown environment",
        dark=widget.get("theme") == "dark",
        narrow=0 < read_number(widget.get("width")) < NARROW_PIXELS,
        zone=read_zone(widget.get("timezone")),
        typed={key: text for key, value in typed.items() if (text := str(value or "").strip())},
    )


def read_object(value: object) -> dict[str, Any]:
    """{} for anything else: who may invoke the function can send any JSON."""
    return value if isinstance(value, dict) else {}


def read_number(value: object) -> float:
    return value if isinstance(value, int | float) else 0


def read_zone(timezone: object) -> tzinfo:
    """The zone that the dashboard shows, UTC or the viewer's, such as {"label": "Local", "offsetISO": "-03:00"}."""
    try:
        return datetime.fromisoformat(f"2026-01-01T00:00:00{read_object(timezone).get('offsetISO')}").tzinfo or UTC
    except ValueError:
        return UTC


def list_hotfixes(sql_dir: Path) -> list[str]:
    """The newest first: an id begins with its date."""
    return sorted((path.stem for path in sql_dir.glob("*.sql")), reverse=True)


def read_recent(client: SFNClient, newest: Sequence[ExecutionListItemTypeDef]) -> list[Execution]:
    """Those of them that could change something or proved it, the newest first."""
    names = [one for one in newest if not one["name"].startswith(READ_ONLY_NAMES)]
    described = (describe(client, one["executionArn"]) for one in names[: 2 * SHOWN_EXECUTIONS])
    # EventBridge gives its executions names of its own, so only the request tells the action.
    recent = [one for one in described if one.request.get("action") not in (None, "plan", "check")]
    return recent[:SHOWN_EXECUTIONS]
