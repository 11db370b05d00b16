"""A failure as people read it: its name, what happened, what state the database is in, and the line to paste.

The function's own errors say all that. Of any other failure Step Functions has a name and a cause; here are the words.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from pg_hotfix_report.commands import ask, ask_again, is_forced, is_hotfix_id, read_lines
from pg_hotfix_report.run import READ_ONLY, object_in, text_of

if TYPE_CHECKING:
    from pg_hotfix_report.run import Run
    from pg_hotfix_report.settings import Settings

# Names for what is none of the function's errors. They have no dot; the names that AWS gives have one.
CALL = "FunctionCallError"
ENDPOINT = "EndpointCheckError"
ERRORS = "ErrorsContinueError"
WATCH = "WatchError"
NAMES = {CALL, ENDPOINT, ERRORS, WATCH}
# The search's own: the text is the reason alone.
OF_SEARCH = {WATCH, "LogUnavailableError"}
# https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
TOO_LARGE = "States.DataLimitExceeded"
RESERVED = "States."
# What a Fail state takes: https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html
LONGEST_CAUSE = 32_768
# Only a failure whose transaction proves it says so.
UNCHANGED = "Nothing was changed"
HAD_APPLIED = "Before this failure the apply answered"


def explain(run: Run, settings: Settings) -> Run:
    """The failed run with its failure's final name and text. Which task has failed is told by what has answered before:
    the function until it has verified, then the endpoint, then the log."""
    if "verify" not in run.answers:
        error, cause = explain_call(run)
    elif settings.endpoint_url and "endpoint" not in run.output:
        error, cause = ENDPOINT, explain_endpoint(run, settings)
    else:
        error, cause = explain_watch(run, settings)
    return replace(run, error=error, cause=cause[:LONGEST_CAUSE])


def explain_call(run: Run) -> tuple[str, str]:
    """Of the function itself."""
    error, said = run.error or "", read_message(run.cause)
    if error == TOO_LARGE:
        error, text = CALL, tell_too_large(run)
    elif "." in error:
        text = tell_no_answer(run, f"{error}: {said}" if said else error)
        error = CALL if error.startswith(RESERVED) else error
    else:
        text = add_apply(run, said) if said else f"The function gave no text with this error.\n{tell_again(run)}"
    # "Nothing was changed" is then true of the verify only.
    applied = object_in(run.output, "apply")
    return error, f"{HAD_APPLIED}: {applied.get('summary')}\n{text}" if applied else text


def read_message(cause: str | None) -> str | None:
    """The text of a function's error, which Lambda puts into JSON, or the cause as it is.

    https://docs.aws.amazon.com/lambda/latest/dg/python-exceptions.html
    """
    try:
        return text_of(json.loads(cause or "")["errorMessage"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return cause


def tell_too_large(run: Run) -> str:
    action = run.request.get("action")
    look = ask(str(action) if action in READ_ONLY else "plan", run.hotfix, run.arn, [("--direct",)])
    return (
        f"The function's answer exceeds the 256 KiB that Step Functions carries. {tell_state(run)}\n"
        f"Ask the function itself what is there:  {look}"
    )


def tell_no_answer(run: Run, what: str) -> str:
    return f"The function did not answer ({what}).\n{tell_state(run)}\n{tell_again(run)}"


def add_apply(run: Run, said: str) -> str:
    """The function, which was asked for a plan, ends its text in a line for the plan; the apply was asked for."""
    if run.request.get("action") == "apply" and run.failed_action == "plan" and is_hotfix_id(run.hotfix):
        return f"{said}\nWhen the plan succeeds, apply:  {ask_again(run)}"
    return said


def tell_again(run: Run) -> str:
    if run.reverting and is_forced(run.request):
        return (
            "The same request again drops the column with all that was written to it since. See what is there now:  "
            f"{ask('plan', run.hotfix, run.arn)}\nTo drop it all the same:  {ask_again(run)}"
        )
    return f"Run the same request again; it is safe:  {ask_again(run)}"


def tell_state(run: Run) -> str:
    asked = run.failed_action or run.request.get("action")
    if asked == "verify" and object_in(run.output, "apply"):
        return "The verify changed nothing. What the apply has committed stays."
    if asked in READ_ONLY:
        return f"{UNCHANGED}: {asked} only reads."
    applied = "The file was applied and recorded" if run.request.get("record") else "The file was applied"
    what = "The revert was run" if run.reverting else applied
    return f"{what} completely or not at all: PostgreSQL rolls back what was not committed."


def explain_endpoint(run: Run, settings: Settings) -> str:
    # The names of the endpoint function's own errors have no dot, and their texts go on after the URL.
    error = run.error or ""
    what = None if "." in error else read_message(run.cause)
    return (
        f"The endpoint {settings.endpoint_url} {what or f'could not be called ({error})'}.\n"
        f"{tell_proof(run)}\n"
        "Read in the application's log what it misses now. After 401 or 403, correct the secret that the parameter "
        "EndpointTokenSecretArn names.\n"
        'After "cached plan must not change result type", restart the application: its sessions prepared SELECT * '
        "before the change.\n"
        f"When that is repaired, call the endpoint again:  {ask('verify', run.hotfix, run.arn)}"
    )


def explain_watch(run: Run, settings: Settings) -> tuple[str, str]:
    error = run.error or ""
    since = object_in(run.output, "verify").get("finished_at_ms")
    lines = f"Read its lines:  {read_lines(settings.log_group, settings.error_pattern, since)}"
    again = f"When that is repaired, watch the log again:  {ask('verify', run.hotfix, run.arn)}"
    if error == ERRORS:
        return ERRORS, (
            f"A line in the application's log matches the error pattern, at most {run.watched_minutes + 1} min after "
            f"the verify.\n{tell_proof(run)}\n"
            f"Something else may be missing, or an old version of the application still runs. {lines}\n{again}"
        )
    reason = read_message(run.cause) if error in OF_SEARCH else None
    return WATCH, (
        f"The log {settings.log_group} could not be searched ({reason or error}), so nobody knows whether the errors "
        f"of the application have ended.\n{tell_proof(run)}\n{lines}\n{again}"
    )


def tell_proof(run: Run) -> str:
    return f"The change is committed and verified: {object_in(run.output, 'verify').get('summary')}"
