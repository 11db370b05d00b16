"""What a SQLSTATE means here, and what of an error's words may be shown.

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

# https://www.postgresql.org/docs/current/errcodes-appendix.html
# The next attempt may succeed. 40001 comes where the role's transactions are serializable.
LOCK_NOT_AVAILABLE = {"55P03", "40P01", "40001"}
# 57P01 and 57P02 ended by the administrator or a crash, 57P03 starting up or shutting down, 57P04 the database was
# dropped, 57P05 and 25P03 idle for too long.
ENDED_BY_SERVER = re.compile(r"57P0[1-5]|25P03")
# No disk, no memory, no file, corruption. But 53400 is a limit that the SQL exceeds each time, such as temp_file_limit.
IN_TROUBLE = re.compile(r"08...|53[0-3]..|58...|XX...")
# Their messages name objects and numbers; what rows hold is in DETAIL, which is never shown.
NAMES_OBJECTS_ONLY = re.compile(r"(0A|23|25|2B|54|55|53|58|57)...")
# Where PostgreSQL reports, under any SQLSTATE, what the code of a function or a remote server made up itself.
MADE_UP_BY = re.compile(r"(pl_exec|plperl|plpy_\w+|pltcl|plv8|dblink|connection)\.cc?")
# Hints are shown that quote nothing but a setting, and hold no number but its value.
HOLDS_NO_DATA = re.compile(r"""(?:[^"'«»„“”\d]|(?<=\w)'(?=s\b)|"max_\w+"|\(currently \d+kB\))+""")
LOCK_TABLE = re.compile(r"max_(?:pred_)?locks_per_transaction")
# The functions of the server that end a query for the sake of a replica's replay: both codes are mostly something else.
CANCELLED_IN = ("ProcessInterrupts", "ProcessRecoveryConflict")
# A character has no equivalent in UTF8, or bytes are no characters.
NOT_CONVERTED = ("22P05", "22021")
WITHHELD = "its text may quote row data and is withheld"

# Which function of the server refuses one connection too many, and so whose limit it is.
LIMITED_BY = {"InitializeSessionUserId": "role", "CheckMyDatabase": "database"}

# In a line of an error's context: of PL/pgSQL with its arguments, of other languages in quotes.
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
    """The contract's error for a login that failed, or LoginRefused."""
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
    """The contract's error for PgBouncer's words, or LoginRefused."""
    if re.search("authentication failed|no such user", message):
        return LoginRefused("08P01", message, by_pooler=True)
    if "no such database" in message:
        return errors.database_missing(target.address, target.user, "08P01", message, by_pooler=True)
    if re.search("^(?!unsupported).*(no more connections|_timeout|cannot connect|login has|shutting down)", message):
        return errors.pooler_unavailable(target.address, f"08P01: {message}")
    return errors.pooler_in_front(target.address, f"08P01: {message}")


def is_free_of_row_data(sqlstate: str, fields: Mapping[str, str], sql: str) -> bool:
    """Whether a message about the file's SQL can be shown: it is the file's own words, or it is about the text of the
    file, or of a kind that names objects only. A value that does not fit, a name that a row made up, and what a
    trigger RAISEs may be a row's."""
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
    """The SQLSTATE, and the names of the functions whose code made up the error, the innermost first and without
    schema. They are to be looked up in the catalog and not to be shown: the context may quote row data.

    https://www.postgresql.org/docs/current/protocol-error-fields.html
    """
    if not isinstance(error, DatabaseError) or not is_made_up(error.args[0]):
        return "", []
    found = [FUNCTION.search(line) for line in error.args[0].get("W", "").splitlines()]
    names = [name["quoted"] or name["plain"] or name["other"] for name in found if name]
    return sqlstate_of(error), [name.replace('""', '"') for name in names]


def is_made_up(fields: Mapping[str, str]) -> bool:
    """Whether the words are those of a function or a remote server."""
    return bool(MADE_UP_BY.fullmatch(fields.get("F", "")))


def sqlstate_of(error: DatabaseError) -> str:
    return str(error.args[0].get("C", "XX000"))


def reason_of(error: Exception) -> str:
    """Why the connection was lost; pg8000 wraps the system's words in its own."""
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
