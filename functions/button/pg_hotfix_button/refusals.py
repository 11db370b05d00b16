"""Every text that the widget shows instead of a page: what happened, what was started or changed, and what to do."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from pg_hotfix_button.executions import has_started_nothing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pg_hotfix_button.executions import OtherPlanError

NOTHING_STARTED = "Nothing was started and nothing was changed."


class RefusedError(Exception):
    """The widget refuses the request. Nothing was started."""

    def __init__(self, message: str, hotfixes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.hotfixes = hotfixes


def without_click() -> RefusedError:
    return RefusedError(
        f"This apply does not come from a click in the widget. {NOTHING_STARTED} Remove action and plan_hash from the "
        "widget's parameters in the dashboard. To apply from a shell:  ./pg-hotfix apply ID --env ENV"
    )


def without_plan() -> RefusedError:
    return RefusedError(
        f"The apply names no plan: its plan_hash is not 64 hex digits. {NOTHING_STARTED} Refresh the widget, read what "
        "it shows, and click there."
    )


def other_plan(error: OtherPlanError) -> RefusedError:
    return RefusedError(
        f"{error} See its steps under Last executions. When it has ended, refresh the widget, read what it shows, and "
        "click there if something is still missing."
    )


def not_packaged(hotfix: str, hotfixes: Sequence[str]) -> RefusedError:
    return RefusedError(
        f"The function has no hotfix {hotfix}. {NOTHING_STARTED} Correct the parameter hotfix of the widget, or add "
        f"sql/{hotfix}.sql, have it reviewed, and deploy it. It has these:",
        hotfixes,
    )


def nothing_packaged(sql_dir: str) -> RefusedError:
    return RefusedError(
        f"The function has no hotfix: {sql_dir} contains no .sql file. {NOTHING_STARTED} Add one to sql/, have it "
        "reviewed, and deploy it."
    )


def of_another_machine(arn: str) -> RefusedError:
    return RefusedError(
        f"{arn} is not an execution of this stack's state machine. {NOTHING_STARTED} Refresh the widget, and choose "
        "one from the list."
    )


def lacks_setting(name: str) -> RefusedError:
    return RefusedError(
        f"The widget's function lacks the environment variable {name}. {NOTHING_STARTED} Deploy the stack again."
    )


def explain_unseen(error: Exception, arn: str) -> str:
    """The apply was started, but its state could not be read."""
    return f"The apply was started as {arn.rpartition(':')[2]}. {say_what(error)} {say_advice(error)}"


def explain(error: Exception, *, is_apply: bool) -> str:
    """What happened, what was started or changed, and what to do."""
    return f"{say_what(error)} {say_consequence(error, is_apply=is_apply)} {say_advice(error)}"


def say_what(error: Exception) -> str:
    match error:
        case ClientError():
            code, call = error.response["Error"]["Code"], error.operation_name
            if is_denial(code):
                return f"The widget's function lacks the permission states:{call} ({code})."
            return f"Step Functions refused {call} ({code}: {error.response['Error'].get('Message', '')})."
        case BotoCoreError():
            return f"Step Functions did not answer ({type(error).__name__})."
        case _:
            place = traceback.extract_tb(error.__traceback__)[-1:]
            where = "".join(f" at {Path(frame.filename).name}:{frame.lineno}" for frame in place)
            return f"The widget's function has a defect ({type(error).__name__}{where})."


def say_consequence(error: Exception, *, is_apply: bool) -> str:
    if not is_apply:
        return "Nothing was changed: the widget only looked."
    if has_started_nothing(error):
        return NOTHING_STARTED
    return "The apply may have been started. Refresh the widget, and see Last executions."


def say_advice(error: Exception) -> str:
    match error:
        case ClientError() if is_denial(error.response["Error"]["Code"]):
            return "Compare ButtonRole with template.yaml, and deploy the stack again."
        case ClientError() if error.response["Error"]["Code"].endswith("DoesNotExist"):
            return "Refresh the widget. If it keeps failing, compare STATE_MACHINE_ARN with the stack, and deploy it."
        case ClientError() | BotoCoreError():
            return "Wait a moment, and refresh. A second click starts no second apply."
        case _:
            return "Report the line in the function's log, which has the details."


def is_denial(code: str) -> bool:
    return "AccessDenied" in code or "UnauthorizedOperation" in code
