"""What a SQLSTATE means here, and which parts of an error's message may be shown.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pg8000.exceptions import DatabaseError, InterfaceError

from pg_hotfix import errors
from pg_hotfix.server import transport
from pg_hotfix.server.login import is_from_pooler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pg_hotfix.server.credentials import Target

# The next attempt may succeed. The server sends 40001 if the role's transactions are serializable.
LOCK_NOT_AVAILABLE = {"55P03", "40P01", "40001"}
# 57P01 and 57P02: ended by the administrator or a crash; 57P03: starting up or shutting down; 57P04: the database was
# dropped; 57P05 and 25P03: idle for too long.
ENDED_BY_SERVER = re.compile(r"57P0[1-5]|25P03")
# No disk, no memory, no file, corruption. Not 53400: the SQL exceeds such a limit, as temp_file_limit, each time.
IN_TROUBLE = re.compile(r"08...|53[0-3]..|58...|XX...")
# Messages of these name objects and numbers. Values of rows are in DETAIL, which is never shown.
NAMES_OBJECTS_ONLY = re.compile(r"(0A|23|25|2B|54|55|53|58|57)...")
# Source files that report, under any SQLSTATE, a message from the code of a function or from a remote server.
MADE_UP_BY = re.compile(r"(pl_exec|plperl|plpy_\w+|pltcl|plv8|dblink|connection)\.cc?")
# A hint is shown if it quotes only the name of a setting, and has no number but its value.
HOLDS_NO_DATA = re.compile(r"""(?:[^"'«»„“”\d]|(?<=\w)'(?=s\b)|"max_\w+"|\(currently \d+kB\))+""")
LOCK_TABLE = re.compile(r"max_(?:pred_)?locks_per_transaction")
# The server's functions that end a query because a replica replays the WAL. Their SQLSTATEs mostly mean something else.
CANCELLED_IN = ("ProcessInterrupts", "ProcessRecoveryConflict")
# A character has no equivalent in UTF8, or bytes are no characters.
NOT_CONVERTED = ("22P05", "22021")
WITHHELD = "its text may quote row data and is withheld"

# The server's function that refuses a connection, and whose limit was reached then.
LIMITED_BY = {"InitializeSessionUserId": "role", "CheckMyDatabase": "database"}

# A function in a line of an error's context: with its arguments in PL/pgSQL, in quotes in other languages.
FUNCTION = re.compile(
    r"""(?:[ .]|^)(?:"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>[^\s"'().]+))\([^()]*\)(?= )"""
    """|(?<= )"(?P<other>[^"]+)"$"""
)

EXCERPT_CHARACTERS = 120


class LoginRefused(Exception):  # noqa: N818 - never leaves the function
    """The server refused the credentials (28xxx), or a pooler did. The secret may have been rotated since it was
    read."""

    def __init__(self, sqlstate: str, message: str, *, by_pooler: bool = False) -> None:
        super().__init__(sqlstate)
        self.sqlstate, self.message, self.by_pooler = sqlstate, message, by_pooler


def translate_login(error: Exception, target: Target) -> Exception:
    """The error of errors.py for a login that failed, or LoginRefused."""
    if not isinstance(error, DatabaseError):
        return errors.database_unavailable(target.address, reason_of(error))
    sqlstate, fields = sqlstate_of(error), error.args[0]
    message, address, user = fields.get("M", ""), target.address, target.user
    if is_from_pooler(fields):
        return translate_pooler(message, target)
    if sqlstate.startswith("28"):
        return LoginRefused(sqlstate, message)
    if sqlstate == "3D000":
        return errors.database_missing(address, user, sqlstate, message)
    if sqlstate == "42501":
        return errors.database_refused(address, target.database, user, sqlstate, message)
    if sqlstate == "55000":
        return errors.database_closed(address, target.database, sqlstate, message)
    if sqlstate == "53300":
        limit = LIMITED_BY.get(fields.get("R", ""))
        return errors.no_connection_left(address, target.database, user, sqlstate, message, limit)
    if sqlstate == "57P03":
        return errors.server_not_ready(address, f"{sqlstate}: {message}")
    if sqlstate in ("42704", "22023", "08P01", "0A000"):
        return errors.startup_refused(address, sqlstate, message)
    return errors.database_unavailable(address, f"{sqlstate}: {message}")


def translate_pooler(message: str, target: Target) -> Exception:
    """The error of errors.py for a message of PgBouncer, or LoginRefused."""
    if re.search("authentication failed|no such user", message):
        return LoginRefused("08P01", message, by_pooler=True)
    if "no such database" in message:
        return errors.database_missing(target.address, target.user, "08P01", message, by_pooler=True)
    if re.search("^(?!unsupported).*(no more connections|_timeout|cannot connect|login has|shutting down)", message):
        return errors.pooler_unavailable(target.address, f"08P01: {message}")
    return errors.pooler_in_front(target.address, f"08P01: {message}")


def is_free_of_row_data(sqlstate: str, fields: Mapping[str, str], sql: str) -> bool:
    """Whether a message about the file's SQL can be shown: the file has the same words, or the message is about the
    text of the file, or it is of a kind that names objects only. Others may hold a row's data: a value that does not
    fit, a name built from a row, the text of a RAISE in a trigger."""
    message = fields.get("M", "")
    if message in sql:
        return True
    if is_made_up(fields):
        return False
    if NAMES_OBJECTS_ONLY.fullmatch(sqlstate):
        return True
    if sqlstate.startswith(("42", "3F")):
        return "P" in fields or all(name in sql for name in re.findall(r'["«„“]([^"»“”]*)["»“”]', message))
    return False


def find_raisers(error: BaseException | None) -> tuple[str, list[str]]:
    """The SQLSTATE, and the names of the functions whose code raised the error, the innermost first and without schema.
    The caller finds them in the catalog, and shows only what it finds there: the context may quote row data.

    https://www.postgresql.org/docs/current/protocol-error-fields.html
    """
    if not isinstance(error, DatabaseError) or not is_made_up(error.args[0]):
        return "", []
    found = [FUNCTION.search(line) for line in error.args[0].get("W", "").splitlines()]
    names = [name["quoted"] or name["plain"] or name["other"] for name in found if name]
    return sqlstate_of(error), [name.replace('""', '"') for name in names]


def is_made_up(fields: Mapping[str, str]) -> bool:
    """Whether the message is from the code of a function or from a remote server."""
    return bool(MADE_UP_BY.fullmatch(fields.get("F", "")))


def sqlstate_of(error: DatabaseError) -> str:
    return str(error.args[0].get("C", "XX000"))


def reason_of(error: Exception) -> str:
    """Why the connection was lost; pg8000 wraps the system's message in its own."""
    if not isinstance(error, InterfaceError):
        return transport.reason_of(error)
    if isinstance(error.__cause__, OSError):
        return transport.reason_of(error.__cause__)
    return "the server closed it" if hung_up(error) else str(error).rstrip(".")


def hung_up(error: Exception) -> bool:
    """Whether the server ended the connection, and not the network."""
    closed = str(error) in ("network error", "connection is closed")
    return isinstance(error, InterfaceError) and closed and not isinstance(error.__cause__, OSError)


def excerpt(sql: str, position: int) -> str:
    """The line of `sql` that holds the character at `position`, counted from 1, with a caret below it; of a long line
    only what surrounds it. Empty when the position lies outside."""
    if not 1 <= position <= len(sql) + 1:
        return ""
    start = sql.rfind("\n", 0, position - 1) + 1
    line = sql[start:].split("\n", 1)[0].rstrip("\r").replace("\t", " ")
    column = position - 1 - start
    cut = max(0, column - EXCERPT_CHARACTERS // 2) if len(line) > EXCERPT_CHARACTERS else 0
    head = f"LINE {sql.count('\n', 0, start) + 1}: "
    return f"{head}{line[cut : cut + EXCERPT_CHARACTERS]}\n{' ' * (len(head) + column - cut)}^"
