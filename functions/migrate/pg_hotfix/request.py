"""The request in an event, read and checked before anything is contacted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pg_hotfix import errors
from pg_hotfix.file.hotfix_id import HOTFIX_ID

# docs/reference.md has these texts.
ACTIONS = {
    "check": "Proves everything that an incident needs: secret, network, TLS, login, files, and the rights on every "
    "table that ALTER TABLE reaches. The id is optional.",
    "plan": "Reads what is there, what would run, and who is in the way. The default.",
    "apply": "Runs the file if a column is missing, proves the columns, commits, and reads them again.",
    "verify": "Reads that every column is as expected, and that the role which logs in may select it.",
    "revert": "Runs the file's revert lines. Refuses while a row holds a value of its own in a column.",
    "gate": "Reads that every column of `sql/schema.expect` is as expected. Takes no id.",
}
KEYS = {
    "hotfix": "Id of the file: `sql/<id>.sql`.",
    "action": "One of the actions above. `plan` if it is missing.",
    "reason": "Why, such as the incident. A forced revert needs it. Self-declared.",
    "requested_by": "Who asks. Self-declared.",
    "plan_hash": "With `apply`: the `plan_hash` of a plan. If the file, the database or a column has changed since, "
    "the apply is refused.",
    "correlation_id": "Name of the caller's own run: an ARN of Step Functions, SSM Automation, CodeBuild or "
    "CodePipeline, or the URL of a GitHub Actions run. Self-declared; it decides what `caller` says.",
    "record": 'With `apply`: `"prisma"` writes the row of Prisma\'s history as well.',
    "force": "With `revert`: `true` checks neither the rows nor Prisma's history.",
}
ALLOWED = f"The keys are {', '.join(KEYS)}."
FORCED = "Send force only with the action revert, and with a reason."
# What the command to force a revert shows in place of the reason.
STILL_TO_WRITE = re.compile(r"\s*<.*>\s*")

PLAN_HASH = re.compile(r"[0-9a-f]{64}")

# What started the function, by the form of `correlation_id`. Self-declared, as requested_by is.
CALLERS = (
    ("step_functions", re.compile(r"arn:aws[a-z-]*:states:[^:]*:[^:]*:(express|execution):.+")),
    ("runbook", re.compile(r"arn:aws[a-z-]*:ssm:[^:]*:[^:]*:automation-execution/.+")),
    ("ci", re.compile(r"https://[^/]+/[^/]+/[^/]+/actions/runs/.+|arn:aws[a-z-]*:(codebuild|codepipeline):.+")),
)
TEXT_LIMIT = 1000
# Characters that break a line, move a terminal's cursor, or have no UTF-8.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Request:
    """One request. `hotfix` is None only for `check` of everything and for `gate`. `requested_by`, `reason` and
    `correlation_id` are self-declared. `record` names the tool in whose history `apply` writes what it did; the only
    one is Prisma. With `force` a revert checks neither the rows nor that history."""

    hotfix: str | None
    action: str
    reason: str | None
    requested_by: str | None
    plan_hash: str | None
    correlation_id: str | None
    caller: str
    record: str | None = None
    force: bool = False


def parse_request(event: object) -> Request:
    """The request in the event, or in the `detail` of an EventBridge event. Only the known keys are accepted, so a
    caller cannot send a host, a user or SQL.

    Raises:
        RequestError: the event holds anything else. Nothing was contacted.
    """
    body, caller, event_id = unwrap(event)
    unknown = sorted(str(key) for key in body if key not in KEYS)
    if unknown:
        raise errors.bad_request(f"The request has the unknown key {clip(unknown[0])}", ALLOWED)
    texts = {key: read_text(body, key) for key in KEYS if key != "force"}
    action = texts["action"] or "plan"
    if action not in ACTIONS:
        raise errors.bad_request(f"The action {clip(action)} does not exist", f"The actions are {', '.join(ACTIONS)}.")
    hotfix = texts["hotfix"]
    if hotfix is None and action not in ("check", "gate"):
        raise errors.bad_request(f"The request to {action} names no hotfix", ALLOWED)
    if hotfix is not None and action == "gate":
        raise errors.bad_request(
            "The request to gate names a hotfix, but the gate checks the whole schema", "Leave the hotfix out."
        )
    if hotfix is not None and not HOTFIX_ID.fullmatch(hotfix):
        raise errors.bad_request(
            f"{clip(hotfix)} is not the id of a hotfix",
            "An id is 14 digits, an underscore, and lower-case words, such as 20260212092000_add_drivers_active_since.",
        )
    plan_hash = texts["plan_hash"]
    if plan_hash is not None and (action != "apply" or not PLAN_HASH.fullmatch(plan_hash)):
        raise errors.bad_request(
            "plan_hash is not 64 hex digits, or the action is not apply",
            "Copy plan_hash from the answer of a plan, and send it with apply only.",
        )
    record = texts["record"]
    if record is not None and (action != "apply" or record != "prisma"):
        raise errors.bad_request(
            'record is not "prisma", or the action is not apply',
            "Send record only with apply, to record the hotfix in Prisma's history as well.",
        )
    force = read_force(body)
    if force and (action != "revert" or not texts["reason"]):
        raise errors.bad_request("force is for the action revert only, and needs a reason", FORCED)
    if force and STILL_TO_WRITE.fullmatch(reason := texts["reason"] or ""):
        raise errors.bad_request(f"The reason is still {clip(reason)}", "Write why the data may go.")
    correlation_id = texts["correlation_id"] or event_id
    if caller is None:
        caller = next((name for name, form in CALLERS if form.fullmatch(correlation_id or "")), "direct")
    return Request(
        hotfix, action, texts["reason"], texts["requested_by"], plan_hash, correlation_id, caller, record, force
    )


def unwrap(event: object) -> tuple[dict[Any, Any], str | None, str | None]:
    """The request itself; the caller, if the envelope shows it; and the envelope's id.

    https://docs.aws.amazon.com/eventbridge/latest/ref/events-structure.html
    """
    if isinstance(event, dict) and "detail-type" in event and "source" in event:
        detail = event.get("detail")
        if not isinstance(detail, dict):
            raise errors.bad_request(
                "The EventBridge event has no object as its detail", f"Put the request there. {ALLOWED}"
            )
        return detail, "eventbridge", read_text(event, "id")
    if not isinstance(event, dict):
        raise errors.bad_request("The event is not an object", ALLOWED)
    return event, None, None


def read_text(body: dict[Any, Any], key: str) -> str | None:
    """The text under that key. None if it is null, missing, or empty, as a form sends an empty field."""
    value = body.get(key)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str) or len(value) > TEXT_LIMIT or UNPRINTABLE.search(value):
        raise errors.bad_request(f"{key} is not a text of at most {TEXT_LIMIT} characters in one line", ALLOWED)
    return value


def read_force(body: dict[Any, Any]) -> bool:
    """Accepts texts as well, because a shell and a form send nothing else."""
    value = body.get("force")
    if value is True or value == "true":
        return True
    if value is None or value is False or (isinstance(value, str) and value.strip() in ("", "false")):
        return False
    raise errors.bad_request("force is neither true nor false", FORCED)


def clip(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}...")
