"""The incident and its fix, told by doing it."""

import json
import time
from typing import Any

import pg8000.native

from cli import show
from laptop.environment import Laptop, describe_table, running_laptop
from laptop.errors import LocalError
from laptop.incident import DATABASE, HOTFIX, SELECT_DRIVER
from laptop.places import PROJECT

COLUMN = "active_since"


def tell_story() -> None:
    """The column that was missing is there, applied by the built function; every step is shown.

    Raises: LocalError when a step did not end as the story says.
    """
    started = time.monotonic()
    with running_laptop(fresh=True) as laptop:
        show.show_title("GET /api/admin/drivers/:id answers 500: the column drivers.active_since does not exist.")
        where = f"database {DATABASE}, as the incident began"
        show.show_text(f"PostgreSQL {read_version(laptop)} on this machine, TLS and SCRAM, {where}.")

        show.show_step(1, "the application", "before")
        show.show_text(SELECT_DRIVER)
        show.show_text(select_driver(laptop, expect_column=False), "red")

        show.show_step(2, "check", "Secret, network, TLS, login, ownership, files: is every link ready?")
        invoke(laptop, "check", "ready", hotfix=HOTFIX)

        show.show_step(3, "plan", "What is there, and what would run?")
        show.show_text(invoke(laptop, "plan", "would_apply")["sql"].strip())

        show.show_step(4, "apply", "Look, alter, prove, commit, look again.")
        invoke(laptop, "apply", "applied")
        show.show_text(describe_table(laptop.server, laptop.login, "drivers"), mark=COLUMN)

        show.show_step(5, "apply", "The same event again, as a retry sends it.")
        invoke(laptop, "apply", "already_applied")

        show.show_step(6, "verify", "The expectations hold, and the role may select the column.")
        invoke(laptop, "verify", "verified")

        show.show_step(7, "the application", "after, without a restart")
        show.show_text(select_driver(laptop, expect_column=True), "green")
    show.console.print()
    show.show_title(f"Fixed and proved; {time.monotonic() - started:.1f} s for all of it. Next:")
    show.show_text(
        "./pg-hotfix invoke events/plan.json   one invocation; the events are in events/\n"
        "./pg-hotfix psql                       look at the database, or drop the column and begin again\n"
        "make test                              run every check and test\n"
        "make clean                             remove all that was made here"
    )


def invoke(laptop: Laptop, action: str, result: str, **fields: str) -> dict[str, Any]:
    """The built function was invoked with events/<action>.json and those fields, and answered with that result word."""
    invocation = laptop.function.invoke(
        json.loads((PROJECT / "events" / f"{action}.json").read_text(encoding="utf-8")) | fields
    )
    show.show_invocation(invocation)
    if invocation.error_type or invocation.payload["result"] != result:
        raise LocalError(f"The story needs `{result}` from {action}, and did not get it.")
    return dict(invocation.payload)


def select_driver(laptop: Laptop, *, expect_column: bool) -> str:
    """Returns what the application gets from its SELECT: the row, or the error of the incident."""
    login = laptop.login
    with laptop.server.connect(DATABASE, login.user, login.password) as application:
        try:
            rows = application.run(SELECT_DRIVER)
        except pg8000.native.DatabaseError as error:
            if expect_column:
                raise
            refusal = error.args[0]
            return f"ERROR {refusal['C']}: {refusal['M']}  (P2022 to Prisma, 500 to the user)"
    return " | ".join("NULL" if value is None else str(value) for value in rows[0])


def read_version(laptop: Laptop) -> str:
    with laptop.server.connect() as admin:
        return str(admin.run("SHOW server_version")[0][0])
