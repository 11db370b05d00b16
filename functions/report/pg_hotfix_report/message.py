"""What the topic's subscribers are told of an execution: a subject and a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pg_hotfix_report import explain
from pg_hotfix_report.commands import read_report
from pg_hotfix_report.run import NOT_TOLD, object_in, text_of

if TYPE_CHECKING:
    from pg_hotfix_report.run import Run
    from pg_hotfix_report.settings import Settings

# SNS takes at most so many ASCII characters, in one line: https://docs.aws.amazon.com/sns/latest/api/API_Publish.html
LONGEST_SUBJECT = 100


def write_message(run: Run, settings: Settings) -> dict[str, str]:
    # No id and no text of a caller is in the subject.
    subject = f"pg-hotfix {settings.environment}: {run.error or run.output.get('result')}"
    lines = [
        say_headline(run, settings.environment),
        "",
        say_details(run),
        "",
        f"Asked for by (self-declared): {said_by(run, 'requested_by')}",
        f"Reason: {said_by(run, 'reason')}",
        f"Endpoint: {say_endpoint(run, settings)}",
        f"Application log: {say_log(run, settings)}",
        f"Execution: {run.arn}",
        f"The whole report:  {read_report(run.arn or '')}",
    ]
    plain = subject.encode("ascii", "replace").decode()[:LONGEST_SUBJECT]
    return {"subject": " ".join(plain.split()), "text": "\n".join(lines)}


def say_headline(run: Run, environment: str) -> str:
    action, hotfix = run.request.get("action"), run.request.get("hotfix")
    if not run.error:
        return f"{hotfix} in {environment}: {run.output.get('result')}"
    # A request that was refused may hold anything.
    named = isinstance(action, str) and isinstance(hotfix, str)
    return f"{f'{action} of {hotfix}' if named else 'A request'} in {environment} failed: {run.error}"


def say_details(run: Run) -> str:
    if run.error:
        return run.cause or ""
    verified = object_in(run.output, "verify").get("summary")
    return "\n".join(
        [str(run.output.get("summary")), *([f"Verified over a new connection: {verified}"] if verified else [])]
    )


def said_by(run: Run, key: str) -> str:
    said = run.request.get(key)
    return said if isinstance(said, str) and said else NOT_TOLD


def say_endpoint(run: Run, settings: Settings) -> str:
    if "endpoint" in run.output:
        return f"{settings.endpoint_url} answered {object_in(run.output, 'endpoint').get('status')}"
    if run.error == explain.ENDPOINT:
        return "see the error"
    return f"not called ({why_not(run, 'EndpointUrl', settings.endpoint_url)})"


def say_log(run: Run, settings: Settings) -> str:
    if run.error in (explain.ERRORS, explain.WATCH):
        return "see the error"
    if "watch" in run.output:
        return f"no line matched the error pattern for {run.watched_minutes} min after the verify"
    return f"not watched ({why_not(run, 'ApplicationLogGroup', settings.log_group)})"


def why_not(run: Run, parameter: str, value: str) -> str:
    if not value:
        return f"the parameter {parameter} is empty"
    return "this was a revert" if run.reverting else "the run failed before that"


def is_for_people(run: Run) -> bool:
    """Whether anybody is told. Whoever plans or verifies looks at the answer anyway, and a dashboard does so often. A
    gate is about no hotfix; the pipeline that it stops tells its owner."""
    action = text_of(run.request.get("action"))
    return action not in ("plan", "gate") if run.error else action in ("apply", "revert")
