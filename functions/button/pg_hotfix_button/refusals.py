"""Every sentence that the widget shows instead of what was asked for: what happened, what state things are in, what to
do."""

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
    """The widget was asked for something that it does not do. Nothing was started."""

    def __init__(self, message: str, hotfixes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.hotfixes = hotfixes


def without_click() -> RefusedError:
    return RefusedError(
        f"An apply must come from a click in the widget, and this one comes from elsewhere. {NOTHING_STARTED} Take "
        "action and plan_hash out of the widget's parameters in the dashboard; from a shell, use  make hotfix"
    )


def without_plan() -> RefusedError:
    return RefusedError(
        f"The apply names no plan: plan_hash is not the 64 hex digits of one. {NOTHING_STARTED} Refresh the widget, "
        "read what it shows, and click there."
    )


def other_plan(error: OtherPlanError) -> RefusedError:
    return RefusedError(
        f"{error} Last executions shows how it goes. When it has ended, refresh the widget, read what it shows, and "
        "click there if something is still missing."
    )


def not_packaged(hotfix: str, hotfixes: Sequence[str]) -> RefusedError:
    return RefusedError(
        f"There is no packaged hotfix {hotfix}. {NOTHING_STARTED} Correct the parameter hotfix of the widget, or add "
        f"sql/{hotfix}.sql, have it reviewed, and deploy. These are packaged:",
        hotfixes,
    )


def nothing_packaged(sql_dir: str) -> RefusedError:
    return RefusedError(
        f"No hotfix is packaged: {sql_dir} holds no .sql file. {NOTHING_STARTED} Add one to sql/, have it reviewed, "
        "and deploy."
    )


def of_another_machine(arn: str) -> RefusedError:
    return RefusedError(
        f"{arn} is no execution of this stack's state machine. {NOTHING_STARTED} Refresh the widget and choose one of "
        "the list."
    )


def lacks_setting(name: str) -> RefusedError:
    return RefusedError(
        f"The widget's function lacks the environment variable {name}. {NOTHING_STARTED} Deploy the stack."
    )


def explain_unseen(error: Exception, arn: str) -> str:
    """The apply was started, and only the sight of it was lost."""
    return f"The apply was started as {arn.rpartition(':')[2]}. {say_what(error)} {say_advice(error)}"


def explain(error: Exception, *, is_apply: bool) -> str:
    """What happened, in which state that leaves things, and what to do."""
    return f"{say_what(error)} {say_state_of_things(error, is_apply=is_apply)} {say_advice(error)}"


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


def say_state_of_things(error: Exception, *, is_apply: bool) -> str:
    if not is_apply:
        return "Nothing was changed: this was only a look."
    if has_started_nothing(error):
        return NOTHING_STARTED
    return "Whether the apply was started is not known from here: refresh, and see the last executions."


def say_advice(error: Exception) -> str:
    match error:
        case ClientError() if is_denial(error.response["Error"]["Code"]):
            return "Compare ButtonRole with template.yaml, and deploy."
        case ClientError() if error.response["Error"]["Code"].endswith("DoesNotExist"):
            return "Refresh the widget; if it keeps failing, compare STATE_MACHINE_ARN with the stack, and deploy."
        case ClientError() | BotoCoreError():
            return "Wait a moment and refresh: a second click starts no second apply."
        case _:
            return "The function's log has the details; report that line."


def is_denial(code: str) -> bool:
    return "AccessDenied" in code or "UnauthorizedOperation" in code
