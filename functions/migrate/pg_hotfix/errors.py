"""Every error an operator can meet, with its whole text, in one place.

The class name is the error's name: state machines, alarms and scripts match it. Each text has three parts: what
happened, what state the database is in, what to do next. "Nothing was changed." stands only where no COMMIT was sent.
"""

from __future__ import annotations

import json
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UNTOUCHED = "Nothing was contacted and nothing was changed."
UNCHANGED = "Nothing was changed."


class HotfixError(Exception):
    """A failure with a text for people and, in `facts`, the same as data for the log. Neither holds a secret or row
    data."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts: dict[str, Any] = facts


class RequestError(HotfixError):
    """The event is not a request. Nothing was contacted."""


class UnknownHotfixError(HotfixError):
    """No packaged file has this id. Nothing was contacted."""


class HotfixFileError(HotfixError):
    """A packaged file can't be used as it is. Nothing was changed, unless the text says so."""


class ConfigurationError(HotfixError):
    """A setting of the function is missing or out of bounds. Nothing was contacted."""


class SecretError(HotfixError):
    """The secret is missing, denied or unreadable. The database was not contacted."""


class SecretUnavailableError(HotfixError):
    """Secrets Manager did not answer. The database was not contacted."""

    retryable = True


class DatabaseUnavailableError(HotfixError):
    """There is no usable connection, it was lost before the SQL was sent, or the server failed: it rolls back."""

    retryable = True


class TlsError(HotfixError):
    """The server could not be verified. No credentials were sent."""


class LoginError(HotfixError):
    """The server refused the login, also with the secret read again, or lets this role not into this database."""


class NotOwnerError(HotfixError):
    """The role lacks the right to do this (SQLSTATE 42501). Nothing was changed."""


class ReadOnlyDatabaseError(HotfixError):
    """The server is a replica or read-only. Nothing was changed."""


class LockBusyError(HotfixError):
    """The lock was not free within the budget. Nothing was changed."""

    retryable = True


class StatementTimeoutError(HotfixError):
    """The server cancelled a statement (SQLSTATE 57014) and rolled back. Nothing was changed."""


class SqlRefusedError(HotfixError):
    """PostgreSQL refused the SQL and rolled back. Nothing was changed."""


class MismatchError(HotfixError):
    """A column is not what the file expects. No DDL was run, or it was rolled back."""


class RelationError(HotfixError):
    """The table is missing, the name is not a table's, or the table can't take the column. Nothing was run."""


class PlanChangedError(HotfixError):
    """The plan no longer describes the database. Nothing was changed."""


class RevertRefusedError(HotfixError):
    """To revert would lose data, or leave the column out for good. Nothing was changed."""


class InternalError(HotfixError):
    """pg-hotfix itself is wrong. An open transaction is rolled back."""


class OutcomeUnknownError(HotfixError):
    """The connection was lost while the SQL and COMMIT were under way. All is there, or nothing."""

    retryable = True


# Requests


def bad_request(what: str, allowed: str) -> RequestError:
    return RequestError(f"{what}. {UNTOUCHED} {allowed}")


def unknown_hotfix(hotfix: str, known: Sequence[str]) -> UnknownHotfixError:
    packaged = "\n".join(f"  {name}" for name in known) or "  (none)"
    return UnknownHotfixError(
        f"There is no packaged hotfix {hotfix}. {UNTOUCHED} The packaged ones are:\n{packaged}\nSend one of these, or "
        f"add sql/{hotfix}.sql, have it reviewed, and deploy."
    )


def bad_file(file: str, what: str, advice: str) -> HotfixFileError:
    return HotfixFileError(f"sql/{file} {what}. {UNTOUCHED} {advice}")


def no_way_back(hotfix: str, way_back: Sequence[str]) -> HotfixFileError:
    lines = "\n".join(f"  -- revert: {line}" for line in way_back)
    return HotfixFileError(
        f"sql/{hotfix}.sql has no revert line, so nobody has reviewed the way back. {UNTOUCHED} If this is it, write "
        f"it at the head of the file, have it reviewed, deploy, and run it again:\n{lines}"
    )


def bad_type(file: str, column: str, column_type: str, reason: str) -> HotfixFileError:
    return HotfixFileError(
        f"sql/{file} expects {column} to have the type {column_type}, which is no column's type ({reason}). "
        f"{UNCHANGED} Write the type as in CREATE TABLE, such as timestamptz, numeric(10,2) or text[]."
    )


def character_missing(file: str, sign: str, line: int, database: str, encoding: str) -> HotfixFileError:
    code = f"U+{ord(sign):04X}"
    shown = f'"{sign}" ({code})' if sign.isprintable() else code
    return HotfixFileError(
        f"sql/{file} holds {shown} in line {line}, and the encoding {encoding} of the database {database} has no such "
        f"character. {UNCHANGED} Write that line without it (a comment may keep it), have it reviewed, deploy, and run "
        "the same request again."
    )


def file_ended_transaction(hotfix: str) -> HotfixFileError:
    return HotfixFileError(
        f"sql/{hotfix}.sql ended the transaction that it ran in. What it did before that is committed, without proof. "
        f'See what is there:  {{"hotfix": "{hotfix}", "action": "plan"}}  and take the transaction control out.'
    )


def no_list(file: str) -> ConfigurationError:
    return ConfigurationError(
        f"No sql/{file} is packaged, the list of the columns that the application expects. {UNTOUCHED} Write it from "
        "the application's schema, and deploy:  make gate SCHEMA=schema.sql"
    )


def bad_setting(name: str, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(f"{name} {what}. {UNTOUCHED} {advice}")


def too_little_time(remaining_ms: int, needed_ms: int) -> ConfigurationError:
    return ConfigurationError(
        f"The function has {remaining_ms} ms left, and needs at least {needed_ms} ms to work and to report. "
        f"{UNCHANGED} Raise the function's Timeout in template.yaml."
    )


# The secret


def secret_refused(arn: str, code: str, advice: str) -> SecretError:
    return SecretError(f"Secrets Manager refused {arn} ({code}). The database was not contacted. {advice}")


def secret_unreadable(arn: str, what: str) -> SecretError:
    return SecretError(
        f"The secret {arn} {what}. The database was not contacted. Store the JSON that RDS writes (username, password, "
        "host, port, dbname), or a URL postgresql://user:password@host:5432/name with %XX for special characters, "
        'or {"DATABASE_URL": "<that URL>"}.'
    )


def secret_lacks(arn: str, field: str, setting: str) -> SecretError:
    return SecretError(
        f"The secret {arn} holds no {field}, and {setting} is not set. The database was not contacted. Set {setting} "
        "in the template's parameters and deploy."
    )


def secret_unavailable(arn: str, code: str) -> SecretUnavailableError:
    return SecretUnavailableError(
        f"Secrets Manager did not answer for {arn} ({code}). The database was not contacted. A function in a VPC "
        "reaches it only through an interface endpoint or a NAT gateway: deploy with "
        "CreateSecretsManagerEndpoint=true if the VPC has neither, else run the same request again."
    )


# The connection


def database_unavailable(address: str, reason: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"Cannot connect to the database {address} ({reason}). {UNCHANGED} Run the same request again; if it "
        "keeps failing, check that the instance is available and that its security group lets the function in."
    )


def connection_lost(address: str, reason: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"The connection to the database {address} was lost before COMMIT ({reason}). Nothing was changed: the server "
        "rolls back. Run the same request again."
    )


def arrived_late(address: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"Every message to the database {address} arrived more than half a second late and was refused for that, until "
        "the run had no time left: the network or the server is too slow. Nothing was changed, and no lock was held. "
        "Run the same request again."
    )


def server_in_trouble(address: str, reason: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"The server of the database {address} failed ({reason}). Nothing was changed: the server rolls back. Run the "
        "same request again; if it keeps failing, look at the instance's storage, memory and log."
    )


def certificate_not_verified(host: str, port: int, reason: str) -> TlsError:
    return TlsError(
        f"The certificate of {host}:{port} does not verify: {reason}. No credentials were sent. {UNCHANGED} Update the "
        "bundle (make update-ca-bundle) and deploy if RDS has a new root; else find out who answers at this address."
    )


def host_name_mismatch(host: str, port: int, reason: str) -> TlsError:
    return TlsError(
        f"The server at {host}:{port} presents another name's certificate: {reason}. No credentials were sent. "
        f"{UNCHANGED} Put the endpoint's own name into the secret or DB_HOST, not an IP address or an alias."
    )


def tls_not_offered(host: str, port: int) -> TlsError:
    return TlsError(
        f"The server at {host}:{port} offers no TLS. No credentials were sent, and plaintext is never spoken. "
        f"{UNCHANGED} Turn TLS on at the server (RDS offers it always), or correct the address in the secret or "
        "DB_HOST."
    )


def tls_failed(host: str, port: int, reason: str) -> TlsError:
    return TlsError(
        f"TLS with {host}:{port} failed: {reason}. No credentials were sent. {UNCHANGED} The server must speak TLS 1.2 "
        "or later: check its ssl_min_protocol_version and what stands between."
    )


ENDPOINT = (
    "put the instance's own endpoint into the secret or DB_HOST:  "
    "aws rds describe-db-instances --query 'DBInstances[].Endpoint.Address'"
)
POOLER = f"A pooler (PgBouncer or the like) answers there, not PostgreSQL: {ENDPOINT}"


def login_refused(
    address: str, user: str, sqlstate: str, message: str, arn: str, *, by_pooler: bool = False
) -> LoginError:
    """`message` names role, host and database only. `by_pooler`: it is not PostgreSQL's."""
    return LoginError(
        f"The database {address} refused the login of {user} ({sqlstate}: {message}), also with the secret read again. "
        f"{UNCHANGED} {POOLER if by_pooler else advise_login(user, sqlstate, message, arn)}"
    )


def advise_login(user: str, sqlstate: str, message: str, arn: str) -> str:
    """See auth_failed and ClientAuthentication in
    https://github.com/postgres/postgres/blob/master/src/backend/libpq/auth.c, which translates no name of a method."""
    compare = f"Compare its password with the secret:  aws secretsmanager describe-secret --secret-id {arn}"
    if sqlstate == "28P01":
        return (
            "The role does not exist, has another password, or its password has expired:  "
            f"SELECT rolvaliduntil FROM pg_catalog.pg_roles WHERE rolname = {string(user)};  {compare}"
        )
    if "pg_hba.conf" in message:
        return (
            "No line of the server's pg_hba.conf lets this role in from this host with TLS and a password. Correct the "
            "file, and load it:  SELECT * FROM pg_catalog.pg_hba_file_rules;  SELECT pg_catalog.pg_reload_conf();"
        )
    if "PAM" in message:
        return (
            "RDS asks PAM where a role has rds_iam: it then takes an IAM token and no password. To log in with the "
            f"secret's password:  REVOKE rds_iam FROM {quoted(user)};"
        )
    if "not permitted" in message:
        return f"Let the role log in:  ALTER ROLE {quoted(user)} LOGIN;"
    if "does not exist" in message:
        return f"Correct username in the secret, or create the role:  CREATE ROLE {quoted(user)} LOGIN PASSWORD '...';"
    return (
        "The server's pg_hba.conf chooses how this role logs in; pg-hotfix sends the secret's password and has no "
        f"client certificate. {compare}"
    )


def database_missing(address: str, user: str, sqlstate: str, message: str, *, by_pooler: bool = False) -> LoginError:
    advice = "Correct dbname in the secret or DB_NAME. What there is:  SELECT datname FROM pg_catalog.pg_database;"
    return LoginError(
        f"{user} can't connect to the database {address} ({sqlstate}: {message}). {UNCHANGED} "
        f"{POOLER if by_pooler else advice}"
    )


def database_refused(address: str, database: str, user: str, sqlstate: str, message: str) -> LoginError:
    return LoginError(
        f"{user} may not connect to the database {address} ({sqlstate}: {message}). {UNCHANGED} Grant it:  "
        f"GRANT CONNECT ON DATABASE {quoted(database)} TO {quoted(user)};"
    )


def database_closed(address: str, database: str, sqlstate: str, message: str) -> LoginError:
    return LoginError(
        f"The database {address} lets nobody in ({sqlstate}: {message}). {UNCHANGED} Find out who closed it; "
        "a database whose DROP was interrupted can only be dropped. To open it:  "
        f"ALTER DATABASE {quoted(database)} WITH ALLOW_CONNECTIONS true;"
    )


def no_connection_left(
    address: str, database: str, user: str, sqlstate: str, message: str, limit: str | None
) -> DatabaseUnavailableError:
    """`limit`: "role" or "database" for a limit of their own, None for the server's."""
    advice = {
        "role": f"raise the role's limit:  ALTER ROLE {quoted(user)} CONNECTION LIMIT -1;",
        "database": f"raise the database's limit:  ALTER DATABASE {quoted(database)} CONNECTION LIMIT -1;",
    }.get(
        limit or "",
        "see who holds the connections:  SELECT usename, application_name, state, count(*) FROM "
        "pg_catalog.pg_stat_activity GROUP BY 1, 2, 3 ORDER BY 4 DESC;",
    )
    return DatabaseUnavailableError(
        f"The database {address} has no connection left for {user} ({sqlstate}: {message}). {UNCHANGED} Run the same "
        f"request again; if it keeps failing, {advice}"
    )


def server_not_ready(address: str, reason: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"The server of the database {address} takes no connections now ({reason}). {UNCHANGED} Run the same request "
        "again; if it keeps failing, look at the instance's events:  aws rds describe-events --source-type db-instance"
    )


def pooler_unavailable(address: str, reason: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"The pooler in front of the database {address} gave no connection ({reason}). {UNCHANGED} {POOLER}"
    )


def pooler_in_front(address: str, reason: str = "") -> ConfigurationError:
    said = f" ({reason})" if reason else ""
    return ConfigurationError(
        f"A pooler (PgBouncer or the like) stands between pg-hotfix and the database {address}{said}: the limits of a "
        "session do not reach the server, or stay behind in another client's session. "
        f"{UNCHANGED} To connect without it, {ENDPOINT}"
    )


def scram_failed(address: str, user: str) -> LoginError:
    return LoginError(
        f"The server of the database {address} did not prove that it knows the password of {user}, so the login was "
        f"broken off. {UNCHANGED} Find out who answers at this address; if it is the right server, set the password of "
        f"the secret for the role once more:  ALTER ROLE {quoted(user)} PASSWORD '...';"
    )


def read_only(address: str, reason: str) -> ReadOnlyDatabaseError:
    return ReadOnlyDatabaseError(
        f"The database {address} can't be changed: {reason}. {UNCHANGED} Put the writer's endpoint into the secret or "
        "DB_HOST; after a failover, run the same request again."
    )


# The table and its columns


def relation_missing(table: str, database: str, similar: Sequence[str]) -> RelationError:
    advice = (
        f"There is {', '.join(similar)}: correct the name."
        if similar
        else "Correct the file, or the database it is meant for."
    )
    return RelationError(f"The table {table} does not exist in the database {database}. Nothing was run. {advice}")


def relation_of_other_kind(table: str, kind: str) -> RelationError:
    return RelationError(
        f"{table} is a {kind}, not a table. Nothing was run. A hotfix changes ordinary and partitioned tables: name "
        "the table beneath in the file."
    )


def not_owner(table: str, owner: str, user: str, line: str, *, is_member: bool) -> NotOwnerError:
    """`line`: SQL that gives the role the owner's rights. `is_member`: it is one, and inherits nothing."""
    though = f"; {user} is a member of {owner}, but does not inherit its rights" if is_member else ""
    return NotOwnerError(
        f"{user} does not own {table}: {owner} does, and ALTER TABLE needs the owner's rights{though}. {UNCHANGED} "
        f"Give them to the role, as an administrator:  {line}"
    )


def owned_by_other(table: str, tables_in_sql: Sequence[str], owner: str, user: str, why: str) -> NotOwnerError:
    """`why` no role of the application can be a member of the owner."""
    return NotOwnerError(
        f"{user} does not own {table}: {owner} does, which {why}, and ALTER TABLE needs the owner's rights. "
        f"{UNCHANGED} Give the {'table' if len(tables_in_sql) == 1 else 'tables'} to a role of the application:  "
        + "  ".join(f"ALTER TABLE {table_in_sql} OWNER TO {quoted(user)};" for table_in_sql in tables_in_sql)
    )


def no_usage(schema: str, user: str) -> NotOwnerError:
    return NotOwnerError(
        f"{user} may not use the schema {schema}. {UNCHANGED} Grant it:  "
        f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {quoted(user)};"
    )


def no_create(schema: str, user: str) -> NotOwnerError:
    return NotOwnerError(
        f"{user} may create nothing in the schema {schema}, and the file needs an index or a sequence there. "
        f"{UNCHANGED} Grant it:  GRANT CREATE ON SCHEMA {quoted(schema)} TO {quoted(user)};"
    )


def no_references(table_in_sql: str, user: str) -> NotOwnerError:
    return NotOwnerError(
        f"{user} may not refer to {table_in_sql} by a foreign key. {UNCHANGED} Grant it:  "
        f"GRANT REFERENCES ON {table_in_sql} TO {quoted(user)};"
    )


def no_select_privilege(column: str, table_in_sql: str, user: str) -> NotOwnerError:
    return NotOwnerError(
        f"{column} is as expected, but {user} may not select it. {UNCHANGED} Grant it:  "
        f"GRANT SELECT ON {table_in_sql} TO {quoted(user)};"
    )


def no_lock_privilege(table: str, table_in_sql: str, user: str) -> NotOwnerError:
    return NotOwnerError(
        f"{user} owns {table} but may not lock it, since its own rights on it were revoked. {UNCHANGED} "
        f"Give one back:  GRANT UPDATE ON {table_in_sql} TO {quoted(user)};"
    )


def limit_not_in_force(address: str, name: str, asked_ms: int, found_ms: int) -> ConfigurationError:
    return ConfigurationError(
        f"The server of {address} does not keep the limits of this session: {name} should be {asked_ms} ms, and is "
        f"{found_ms} ms there (0: none). {UNCHANGED} Without its limits a run could hold others up. Reach the "
        "server directly: put the instance's own endpoint, not a pooler's, into the secret or DB_HOST."
    )


def startup_refused(address: str, sqlstate: str, message: str) -> ConfigurationError:
    return ConfigurationError(
        f"The server of {address} refuses the settings that the session starts with ({sqlstate}: {message}). "
        f"{UNCHANGED} Supported are PostgreSQL 14 to 18 with an encoding that converts to UTF8:  SELECT pg_catalog."
        "version(), pg_catalog.current_setting('server_encoding');"
    )


def permission_denied(user: str, message: str) -> NotOwnerError:
    return NotOwnerError(
        f"{user} lacks a permission (42501: {message}). {UNCHANGED} Grant it, or use the role that owns the table."
    )


def mismatch(
    hotfix: str, differing: Sequence[Mapping[str, Any]], *, read_only: bool = False, reverting: bool = False
) -> MismatchError:
    """`differing`: the columns as the response shows them, those that are missing with "missing" as `actual`."""
    lines = []
    for column in differing:
        is_missing = column["actual"] == "missing"
        what = f"is not there, though {hotfix} expects it" if is_missing else f"exists but is not what {hotfix} expects"
        lines += [f"{column['name']} {what}.", f"  expected  {column['expected']}", f"  actual    {column['actual']}"]
    lines[0] += f" {UNCHANGED}"
    present = [column for column in differing if column["actual"] != "missing"]
    if reverting:
        lines += [
            "It is not what this hotfix adds, so revert will not drop it, even with force. Correct the file if it is:"
        ]
        lines += [*lines_to_paste(present), "or drop the column by a migration of its own."]
    elif present:
        hides = "This is what is there." if read_only else "IF NOT EXISTS would keep the column as it is."
        lines += [f"{hides} Correct the file if that is right:", *lines_to_paste(present)]
        lines += ["or change the column by a migration of its own: a hotfix never rewrites an existing column."]
    else:
        lines += [f'Apply it:  {{"hotfix": "{hotfix}", "action": "apply"}}']
    return MismatchError("\n".join(lines), columns=list(differing))


def proof_failed(hotfix: str, differing: Sequence[Mapping[str, Any]], *, reverting: bool = False) -> MismatchError:
    """The SQL did not make what its expect lines promise, or did not drop it, and was rolled back."""
    names = " and ".join(column["name"] for column in differing)
    if reverting:
        return MismatchError(
            f"The revert lines of sql/{hotfix}.sql do not drop {names}. They were run and rolled back. {UNCHANGED} "
            "Correct them, have them reviewed, deploy, and run it again.",
            columns=list(differing),
        )
    lines = [f"sql/{hotfix}.sql does not make {names} as it expects. The SQL was run and rolled back. {UNCHANGED}"]
    for column in differing:
        lines += [f"  {column['name']}", f"    expected  {column['expected']}", f"    made      {column['actual']}"]
    made = [column for column in differing if column["actual"] != "missing"]
    if made:
        lines += ["Correct its SQL, or its expect line if what was made is right:", *lines_to_paste(made)]
    else:
        lines += ["Correct its SQL."]
    lines += ["Then have it reviewed, deploy, and run it again."]
    return MismatchError("\n".join(lines), columns=list(differing))


def lines_to_paste(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"  -- expect: column {column['name']} {column['actual']}" for column in columns]


def changed_since(
    hotfix: str, differing: Sequence[Mapping[str, Any]] = (), reason: str | None = None, *, reverting: bool = False
) -> MismatchError:
    done = "reverted" if reverting else "applied"
    what = "but the look after COMMIT shows something else: somebody has changed it since."
    lines = [f"{hotfix} was {done} and committed, {what}", *([reason] if reason else [])]
    for column in differing:
        expected = "missing" if reverting else column["expected"]
        lines += [f"{column['name']}", f"  expected  {expected}", f"  actual    {column['actual']}"]
    lines += [f'Find out who did, and look again:  {{"hotfix": "{hotfix}", "action": "plan"}}']
    return MismatchError("\n".join(lines), columns=list(differing))


LIMITS_OF_A_HOTFIX = (
    "a hotfix only adds columns, and a filled table takes none at once that is NOT NULL without a default, or whose "
    "default calls another function than now()."
)
# Step Functions keeps 32,768 characters of a failure, and it comes in JSON, where most letters beyond ASCII take 6. A
# log event has 256 kB. https://docs.aws.amazon.com/step-functions/latest/apireference/API_TaskFailedEventDetails.html
LONGEST_LIST, LONGEST_COMMANDS, LOGGED_COLUMNS, NAMED_COMMANDS = 20_000, 6_000, 500, 10


def schema_differs(
    database: str,
    count: int,
    differing: Sequence[Mapping[str, Any]],
    absent: Sequence[Mapping[str, Any]],
    hotfixes: Sequence[tuple[str, str]],
    *,
    rest: bool,
) -> MismatchError:
    """`count`: of all columns on the list. `differing`: those of tables that are there, as the response shows columns.
    `absent`: the other tables, each with its kind, how many columns it should have, and tables that it may be.
    `hotfixes`: name and SQL of what would add columns; `rest`: not all is done by these."""
    columns = [*differing, *(column for table in absent for column in table["columns"])]
    missing = sum(column["actual"] == "missing" for column in columns)
    entries = [f"  {describe_absent(table)}" for table in absent]
    entries += [
        f"  {column['name']}\n    expected  {column['expected']}\n    actual    {column['actual']}"
        for column in differing
    ]
    shown = first_of(entries, LONGEST_LIST)
    hidden = len(entries) - len(shown)
    found = f"of {counted(count, 'column')} {missing} missing, {len(columns) - missing} different"
    lines = [f"The database {database} is not as the application expects: {found}. {UNCHANGED}", *shown]
    lines += [f"  and {hidden} more: is it the right database?"] if hidden else []
    if hotfixes:
        lines += ["Add what is missing by a hotfix for each table; have it reviewed, deploy it, and apply it:"]
        commands = [f"  make new NAME={name} SQL={shell_string(sql)}" for name, sql in hotfixes[:NAMED_COMMANDS]]
        named = first_of(commands, LONGEST_COMMANDS) or ["  make new NAME=... SQL='ALTER TABLE ...'"]
        lines += [*named, "  and so on"] if len(named) < len(hotfixes) else named
    if rest:
        which = "The rest" if hotfixes else "This"
        lines += [f"{which} needs a migration of its own: {LIMITS_OF_A_HOTFIX}"]
    lines += [
        'Do not deploy the application until this passes:  {"action": "gate"}',
        "If it is the list that is wrong, write it again and deploy it:  make gate SCHEMA=schema.sql",
    ]
    return MismatchError("\n".join(lines), columns=columns[:LOGGED_COLUMNS])


def first_of(texts: Sequence[str], longest: int) -> list[str]:
    """As many as take no more than this in JSON, with a line's end for each."""
    ends = accumulate(len(json.dumps(text)) for text in texts)
    return [text for text, end in zip(texts, ends, strict=True) if end <= longest]


def describe_absent(table: Mapping[str, Any]) -> str:
    what = f"is a {table['kind']}, not a table" if table["kind"] else "missing"
    there = f"; there is {', '.join(table['similar'])}" if table["similar"] else ""
    return f"{table['name']}  {what}, with {counted(len(table['columns']), 'column')}{there}"


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


# What ALTER TABLE would refuse


def system_table(table: str) -> RelationError:
    return RelationError(
        f"{table} is a table of PostgreSQL itself. Nothing was run. A hotfix changes the application's tables: correct "
        "the name in the file."
    )


def partition_named(table: str, root: str) -> RelationError:
    return RelationError(
        f"{table} is a partition of {root}, whose columns it has. Nothing was run. Name {root} instead of {table} in "
        "the file: ALTER TABLE changes all its partitions."
    )


def typed_table(table: str, row_type: str, type_in_sql: str, change: str) -> RelationError:
    return RelationError(
        f"{table} is a typed table: its columns are those of the type {row_type}. Nothing was run. Change the type, by "
        f"a migration of its own:  ALTER TYPE {type_in_sql} {change} CASCADE;"
    )


def temporary_table(table: str, target: str) -> RelationError:
    below = "" if table == target else f" and inherits from {target}"
    return RelationError(
        f"{table} is a temporary table of another session{below}, and nobody else can alter it. Nothing was run. Run "
        "the same request again when that session has ended or dropped its table."
    )


def no_room(table: str, attributes: int, needed: int, most: int) -> RelationError:
    return RelationError(
        f"{table} has no room for {counted(needed, 'more column')}: PostgreSQL counts {attributes} of at most {most}, "
        "those that were dropped included (54011). Nothing was run. VACUUM FULL does not give these back: move the "
        "rows to a new table (CREATE TABLE ... (LIKE ... INCLUDING ALL)), or put the column into a table beside it."
    )


def row_type_stored(table: str, table_in_sql: str, column: str, stored_in: str, computed: bool) -> RelationError:
    """`computed`: the column is to be generated, or an identity, and not to have a default."""
    line = f"ALTER TABLE {table_in_sql} ALTER COLUMN {quoted(column)} SET DEFAULT ...;"
    return RelationError(
        f"{table} can get no column that has a value in every row, since {stored_in} stores rows of its type (0A000). "
        "Nothing was run. "
        + (
            f"PostgreSQL adds a generated column or an identity only once {stored_in} is gone, or has another type."
            if computed
            else f"Add the column without a default, and set the default for later rows in a second statement:  {line}"
        )
    )


def child_differs(hotfix: str, table: str, child: str, column: Mapping[str, Any], line_to_paste: str) -> MismatchError:
    """`column`: the child's, as the response shows columns."""
    return MismatchError(
        f"{child} is below {table} and has a column of its own that is not what {hotfix} expects. {UNCHANGED}\n"
        f"  {column['name']}\n    expected  {column['expected']}\n    actual    {column['actual']}\n"
        "ALTER TABLE would refuse it, or leave it different. Change it by a migration of its own, and run the same "
        f"request again:  {line_to_paste}",
        columns=[dict(column)],
    )


def type_not_usable(column: str, type_shown: str, type_in_sql: str, user: str) -> NotOwnerError:
    return NotOwnerError(
        f"{user} may not use the type {type_shown} of {column}. {UNCHANGED} Grant it:  "
        f"GRANT USAGE ON TYPE {type_in_sql} TO {quoted(user)};"
    )


def bad_column(file: str, column: str, what: str, advice: str) -> HotfixFileError:
    return HotfixFileError(f"sql/{file} expects {column} {what}. {UNCHANGED} {advice}")


def bad_expression(file: str, column: str, what: str, column_type: str, refusal: str) -> HotfixFileError:
    return HotfixFileError(
        f"sql/{file} expects {column} {what}, which PostgreSQL does not take for a column of the type {column_type} "
        f"({refusal}). {UNCHANGED} Correct it in the file, each name with its schema unless it is PostgreSQL's own, "
        "have it reviewed, and deploy."
    )


def null_in_rows(file: str, column: str, table: str) -> HotfixFileError:
    return HotfixFileError(
        f"sql/{file} adds {column} as NOT NULL without a default, and {table} has rows: PostgreSQL refuses that "
        f"(23502). {UNCHANGED} Give the column a default, or leave NOT NULL out, in the SQL and in the expect line."
    )


# The way back

# A text is read at 3 a.m.; the log line has more.
NAMED_DEPENDENTS, LOGGED_DEPENDENTS = 20, 200


def column_used(hotfix: str, column: str) -> RevertRefusedError:
    return RevertRefusedError(
        f"{column} is in use: at least one row no longer holds what the column was added with, so {hotfix} was not "
        f"reverted. {UNCHANGED} {force(hotfix)}"
    )


def left_behind(
    hotfix: str, columns: str, staying: Sequence[str], droppable: Sequence[str], *, others: bool
) -> RevertRefusedError:
    """`droppable`: statements for what the file itself makes of these; `others`: there are more."""
    what = f"What needs {columns} would stay behind, so {hotfix} was not reverted: PostgreSQL would refuse to drop it, "
    lines = [f"{what}or writes to its table would fail. {UNCHANGED}", *(f"  {one}" for one in first_few(staying))]
    if droppable:
        lines += [f"Let sql/{hotfix}.sql drop what it makes before the column, have it reviewed, and deploy:"]
        lines += [f"  -- revert: {statement}" for statement in droppable]
    if others:
        lines += [f"Change or drop {'the others' if droppable else 'them'} by a migration, then revert again."]
    return RevertRefusedError(
        "\n".join([*lines, "Force does not get past this."]), staying=list(staying[:LOGGED_DEPENDENTS])
    )


def taken_along(hotfix: str, columns: str, going: Sequence[str], guessed: Sequence[str]) -> RevertRefusedError:
    lines = [f"More than {columns} would be lost, so {hotfix} was not reverted. {UNCHANGED}"]
    if going:
        lines += ["What the file does not make would go along:", *(f"  {one}" for one in first_few(going))]
    if guessed:
        lines += ["What names the column may fail without it:", *(f"  {one}" for one in first_few(guessed))]
    logged = {"going": list(going[:LOGGED_DEPENDENTS]), "guessed": list(guessed[:LOGGED_DEPENDENTS])}
    return RevertRefusedError("\n".join([*lines, force(hotfix)]), **logged)


def dependents_changed(hotfix: str, columns: str) -> RevertRefusedError:
    return RevertRefusedError(
        f"What depends on {columns} has changed since it was looked at, so {hotfix} was not reverted. {UNCHANGED} Look "
        f'again, and revert again:  {{"hotfix": "{hotfix}", "action": "revert", "reason": "<why it may go>"}}'
    )


def first_few(texts: Sequence[str]) -> list[str]:
    hidden = len(texts) - NAMED_DEPENDENTS
    return [*texts[:NAMED_DEPENDENTS], *([f"and {hidden} more"] if hidden > 0 else [])]


def usage_not_told(hotfix: str, column: str) -> RevertRefusedError:
    return RevertRefusedError(
        f"Cannot tell whether {column} is in use, so {hotfix} was not reverted: there are rows, and PostgreSQL has not "
        "kept what they were given when it was added (a volatile default, an identity, or the table was rewritten "
        f"since). {UNCHANGED} {force(hotfix)}"
    )


def rows_not_seen(hotfix: str, tables: str, took_ms: int, limit_ms: int) -> RevertRefusedError:
    return RevertRefusedError(
        f"Whether the rows of {tables} still hold what {hotfix} gave them was not seen in time, so it was not "
        f"reverted: the look took {took_ms} ms, and under the lock, where everybody waits, it may take {limit_ms} ms. "
        f"{UNCHANGED} {force(hotfix)}"
    )


def history_not_seen(hotfix: str, table: str, reason: str) -> RevertRefusedError:
    return RevertRefusedError(
        f"Whether {table} has {hotfix} as applied can't be seen, so it was not reverted: every later prisma migrate "
        f"deploy would skip it then, and never bring the column back. {UNCHANGED} {reason}\n{force(hotfix)}"
    )


def recorded_as_applied(hotfix: str, table: str, table_in_sql: str) -> RevertRefusedError:
    return RevertRefusedError(
        f"{table} has {hotfix} as applied, so it was not reverted: every later prisma migrate deploy would skip it, "
        f"and never bring the column back. {UNCHANGED} Prisma refuses to mark as rolled back what it has as applied "
        "(P3012). If the column is to go for good, drop it by a migration. If that deploy is to add it again, take the "
        f"row out first:  DELETE FROM {table_in_sql} WHERE migration_name = {string(hotfix)};\n{force(hotfix)}"
    )


def force(hotfix: str) -> str:
    """The line that looks at nothing."""
    return (
        "To drop it all the same, with whatever it holds, for good:  "
        f'{{"hotfix": "{hotfix}", "action": "revert", "force": true, "reason": "<why it may go>"}}'
    )


# Prisma's history


def no_history(hotfix: str, database: str) -> RelationError:
    return RelationError(
        f"{hotfix} can't be recorded: the database {database} has no _prisma_migrations in the schemas of the file's "
        'tables or in the search_path. Nothing was run. Leave "record" out; or, if Prisma Migrate is to manage this '
        "database, baseline it first:  prisma migrate resolve --applied <the first migration>"
    )


def history_forbidden(hotfix: str, table: str, table_in_sql: str, rights: Sequence[str], user: str) -> NotOwnerError:
    return NotOwnerError(
        f"{hotfix} can't be recorded: {user} lacks {' and '.join(rights)} on {table}. {UNCHANGED} Grant it:  "
        f"GRANT {', '.join(rights)} ON {table_in_sql} TO {quoted(user)};"
    )


def history_unusable(hotfix: str, table: str, reason: str) -> RelationError:
    return RelationError(
        f"{hotfix} can't be recorded: {table} could not be read. {reason} Nothing was run. Find out whether that is a "
        'table of Prisma Migrate; else leave "record" out.'
    )


def history_has_trigger(hotfix: str, table: str, table_in_sql: str, trigger: str, user: str) -> RelationError:
    return RelationError(
        f"{hotfix} can't be recorded: the trigger {trigger} on {table} calls a function of another role, which would "
        f"run with the rights of {user}. {UNCHANGED} Look at it, drop it, and apply again:  "
        f"DROP TRIGGER {quoted(trigger)} ON {table_in_sql}; "
        'If it is to stay, give its function to the owner of the application\'s tables, or leave "record" out.'
    )


def history_differs(hotfix: str, table: str) -> HotfixFileError:
    return HotfixFileError(
        f"{hotfix} can't be recorded: {table} has it as applied, with the checksum of another file. {UNCHANGED} "
        f"Compare sql/{hotfix}.sql with prisma/migrations/{hotfix}/migration.sql: give the change an id of its own, or "
        'make both the file that was applied. If the column is wanted now, apply without "record".'
    )


def plan_changed(hotfix: str, table: str) -> PlanChangedError:
    return PlanChangedError(
        f"The plan_hash given to apply {hotfix} no longer describes what is there: the file, the database or {table} "
        "has changed since. "
        f'{UNCHANGED} Look again, and apply with the new plan_hash:  {{"hotfix": "{hotfix}", "action": "plan"}}'
    )


# The SQL

# A text is read at 3 a.m.; the log line has them all.
NAMED_BLOCKERS = 5


def lock_busy(
    hotfix: str,
    tables: str,
    blockers: Sequence[Mapping[str, Any]],
    *,
    count: int,
    see: str,
    waited_ms: int,
    attempts: int,
    stalled_ms: int,
    records: bool = False,
    record_only: bool = False,
    reverting: bool = False,
    hidden: bool = False,
) -> LockBusyError:
    """`count`: of all blockers, of whom the first are given. `stalled_ms`: how long others may have waited behind this
    run, at most. `see`: SQL that lets the role see what others do. `records`: a row was to be written to Prisma's
    history as well, or `record_only`. `hidden`: an attempt held its locks and failed on a further one."""
    undone = "recorded" if record_only else "reverted" if reverting else "applied"
    tables = " or ".join(([] if record_only else [tables]) + (["Prisma's history"] if records else []))
    nobody = "nobody waited behind this run"
    behind = f"others waited behind this run for {stalled_ms} ms at most" if stalled_ms else nobody
    state = f"Nothing was changed, and {behind}."
    seconds = f"{waited_ms / 1000:.0f} s"
    locked = f"{tables} stayed locked for {seconds}"
    if hidden:
        locked = f"{tables} could be locked, but a further lock that {hotfix} needs was not free within {seconds}"
    lines = [f"{locked}, so {'it' if hidden else hotfix} was not {undone}. {state}"]
    lines += name_blockers(blockers, count)
    if hidden and not blockers:
        lines += ["pg-hotfix cannot see who holds that lock: look for a table that an event trigger or a trigger uses."]
    elif not blockers:
        elsewhere = "" if record_only else "; another table that the file touches may be locked"
        lines += [f"Nobody holds {tables} at this moment{elsewhere}."]
    lines += [f"Run the same hotfix again{' when it ends' if blockers else ''}.{ending_of(blockers)}"]
    lines += [line for line in [grant_to_see(blockers, see)] if line]
    return LockBusyError(
        "\n".join(lines),
        blockers=list(blockers),
        attempts=attempts,
        lock_wait_ms=waited_ms,
        longest_stall_ms=stalled_ms,
    )


def look_was_blocked(tables: str, blockers: Sequence[Mapping[str, Any]]) -> LockBusyError:
    lines = [f"{tables} could not be read: somebody holds or awaits ACCESS EXCLUSIVE on it. {UNCHANGED}"]
    lines += [*name_blockers(blockers, len(blockers)), f"Run the same request again when it ends.{ending_of(blockers)}"]
    return LockBusyError("\n".join(lines), blockers=list(blockers))


def name_blockers(blockers: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    """A line for each of the first, and how many more there are."""
    lines = [f"In the way: {describe_blocker(blocker)}" for blocker in blockers[:NAMED_BLOCKERS]]
    hidden = count - len(lines)
    return lines + ([f"and {hidden} more."] if hidden > 0 else [])


def ending_of(blockers: Sequence[Mapping[str, Any]]) -> str:
    """What ends those that are named and wait for nobody; those that wait in line themselves are left alone. An
    autovacuum against wraparound would begin again."""
    lines = [
        f"ROLLBACK PREPARED {string(blocker['prepared_transaction'])};"
        if blocker["prepared_transaction"]
        else f"SELECT pg_terminate_backend({blocker['pid']});"
        for blocker in blockers[:NAMED_BLOCKERS]
        if not blocker["waiting"]
        and (blocker["pid"] or blocker["prepared_transaction"])
        and blocker["autovacuum"] not in WHY_IT_STAYS
    ]
    return f" To end it now:  {'  '.join(lines)}" if lines else ""


def grant_to_see(blockers: Sequence[Mapping[str, Any]], see: str) -> str:
    hidden = any(blocker["pid"] and blocker["state"] is None and not blocker["autovacuum"] for blocker in blockers)
    return f"To see what they do and since when:  {see}" if hidden else ""


def describe_blocker(blocker: Mapping[str, Any]) -> str:
    names = ", ".join(name for name in (blocker["user"], blocker["application_name"]) if name)
    gid, age = blocker["prepared_transaction"], blocker["transaction_seconds"]
    if blocker["pid"]:
        what = [f"{blocker['autovacuum'] or ''} pid {blocker['pid']}".strip() + (f" ({names})" if names else "")]
        what += [f"in a transaction for {age:.0f} s"] if age is not None else []
    else:
        what = [f"the prepared transaction {gid or 'with an unknown name'}{f' ({names})' if names else ''}"]
        what += [f"prepared {age:.0f} s ago"] if age is not None else []
    if blocker["waiting"]:
        pids = [f"pid {pid}" if pid else "a prepared transaction" for pid in blocker["waits_for"]]
        more = [f"{len(pids) - NAMED_BLOCKERS} more"] if len(pids) > NAMED_BLOCKERS else []
        what += [f"itself waiting{' for ' if pids else ''}{' and '.join(pids[:NAMED_BLOCKERS] + more)}"]
    table = blocker["table"] or PRISMAS_LOCK
    what += [f"{blocker['lock_mode']} on {table}{'' if blocker['granted'] else ' (awaited)'}"]
    kind = blocker["autovacuum"] or (gid and "prepared") or ("" if blocker["table"] else PRISMAS_LOCK)
    return f"{', '.join(what)}.{WHY_IT_STAYS.get(kind, '')}"


PRISMAS_LOCK = "Prisma's advisory lock 72707369"
# What one would not expect of these.
WHY_IT_STAYS = {
    "autovacuum to prevent wraparound": " It yields to nobody: let it finish.",
    "prepared": " No session will ever let go of it: whoever prepared it must commit it or roll it back.",
    PRISMAS_LOCK: " A prisma migrate that is ended in the middle leaves a failed migration (P3009).",
}


def statement_timeout(hotfix: str, message: str, limit_ms: int) -> StatementTimeoutError:
    return StatementTimeoutError(
        f"PostgreSQL cancelled {hotfix} (57014: {message}; the limit is {limit_ms} ms). {UNCHANGED} {HINT_OF_TIME}"
    )


def catalog_too_slow(address: str, message: str, took_ms: int, limit_ms: int) -> StatementTimeoutError:
    return StatementTimeoutError(
        f"PostgreSQL cancelled a catalog query of pg-hotfix after {took_ms} ms (57014: {message}; the limit is "
        f"{limit_ms} ms). {UNCHANGED} The hotfix file is not the cause: the server of {address} is overloaded, or its "
        "catalog is bloated or very large. See the catalog's dead rows, and raise STATEMENT_TIMEOUT_MS if there are "
        "few:  SELECT relname, n_dead_tup, last_autovacuum FROM pg_catalog.pg_stat_sys_tables ORDER BY n_dead_tup DESC "
        "LIMIT 5;"
    )


def cancelled_by_somebody(what: str, message: str, took_ms: int, limit_ms: int) -> StatementTimeoutError:
    """Before its own limit could do it."""
    return StatementTimeoutError(
        f"Somebody cancelled {what} after {took_ms} ms, before its limit of {limit_ms} ms (57014: {message}). "
        f"{UNCHANGED} Find out who calls pg_cancel_backend there, such as a monitor of long queries, then run the same "
        "request again."
    )


def cancelled_by_replay(address: str, reason: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"The replica {address} cancelled a query to go on with what it receives from the writer ({reason}). "
        f"{UNCHANGED} Put the writer's endpoint into the secret or DB_HOST:  aws rds describe-db-clusters --query "
        "'DBClusters[].Endpoint'"
    )


def transaction_timeout(hotfix: str, limit_ms: int) -> StatementTimeoutError:
    return StatementTimeoutError(
        f"The transaction of {hotfix} was ended because it took longer than {limit_ms} ms. Nothing was changed: "
        f"the server rolls back. {HINT_OF_TIME}"
    )


HINT_OF_TIME = (
    "A hotfix takes milliseconds: look for a rewrite or a scan (a volatile default, SET NOT NULL, an index). "
    "If the file is right, raise STATEMENT_TIMEOUT_MS and deploy."
)


def sql_refused(hotfix: str, sqlstate: str, message: str, excerpt: str, hint: str = "") -> SqlRefusedError:
    """`hint`: the server's, if it holds no data."""
    where = f"\n{excerpt}\n" if excerpt else " "
    return SqlRefusedError(
        f"PostgreSQL refused {hotfix} ({reason_with(sqlstate, message, hint)}). {UNCHANGED}{where}Correct "
        f"sql/{hotfix}.sql, have it reviewed, deploy, and run it again."
    )


WITHHELD_HERE = "what it says is in the server's log and withheld here, since it may quote row data"


def refused_by_trigger(
    error: HotfixError, hotfix: str, sqlstate: str, trigger: str, function: str, switch: tuple[str, str] | None
) -> HotfixError:
    """The same error, with the trigger that raised it. `switch`: SQL that switches an event trigger off and on."""
    code = f"SELECT pg_catalog.pg_get_functiondef({string(function)}::pg_catalog.regprocedure);"
    off, on = switch or ("", "")
    advice = (
        f"Read what it asks for:  {code}  If its owner agrees to switch it off for this run:  {off}  and then  {on}"
        if switch
        else f"Read what it asks for, and correct sql/{hotfix}.sql:  {code}"
    )
    return type(error)(
        f"The {trigger} refused {hotfix} ({sqlstate} from its function {function}; {WITHHELD_HERE}). "
        f"{UNCHANGED} {advice}",
        trigger=trigger,
    )


def refused_by_function(error: HotfixError, hotfix: str, sqlstate: str, function: str) -> HotfixError:
    """The same error, with the function that raised it."""
    return type(error)(
        f"The function {function}, which {hotfix} runs, refused it ({sqlstate}; {WITHHELD_HERE}). {UNCHANGED} Read "
        f"what it asks for, and correct sql/{hotfix}.sql:  "
        f"SELECT pg_catalog.pg_get_functiondef({string(function)}::pg_catalog.regprocedure);"
    )


def query_refused(sqlstate: str, message: str, hint: str = "") -> SqlRefusedError:
    reason = reason_with(sqlstate, message, hint)
    return SqlRefusedError(
        f"PostgreSQL refused a catalog query of pg-hotfix ({reason}). {UNCHANGED} "
        "Supported are PostgreSQL 14 to 18: check the server's version and the role's rights on pg_catalog.",
        refusal=reason,
    )


def catalog_not_readable(database: str, encoding: str, reason: str) -> SqlRefusedError:
    return SqlRefusedError(
        f"The catalog of the database {database} holds a name or a default that can't be read as UTF-8 ({reason}); "
        f"the encoding of the database is {encoding}. {UNCHANGED} Find it among the columns that the file expects, and "
        "set it again:  SET client_encoding = 'UTF8'; ALTER TABLE ... ALTER COLUMN ... SET DEFAULT ...;",
        refusal=reason,
    )


def reason_with(sqlstate: str, message: str, hint: str) -> str:
    return f"{sqlstate}: {message}" + (f"; hint: {hint.rstrip('.')}" if hint else "")


def lock_table_full(what: str, message: str, setting: str) -> SqlRefusedError:
    """Another try meets the same limit, unless many other sessions end first."""
    return SqlRefusedError(
        f"PostgreSQL refused {what}, because its lock table is full (53200: {message}; {setting} is too low). "
        f"{UNCHANGED} Each table, partition and index that is altered needs a lock, and all sessions share the room. "
        "Raise the setting in the instance's parameter group, reboot, and run the same request again:  aws rds "
        "modify-db-parameter-group --db-parameter-group-name <group> --parameters "
        f"ParameterName={setting},ParameterValue=1024,ApplyMethod=pending-reboot"
    )


def outcome_unknown(hotfix: str, address: str, reason: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"The connection to the database {address} was lost while {hotfix} was under way ({reason}). The "
        "change was applied completely or not at all. Run the same hotfix again: it is safe, and finds out."
    )


def commit_not_seen(hotfix: str, address: str, reason: str, *, reverting: bool = False) -> OutcomeUnknownError:
    what, action = ("The revert of ", "plan") if reverting else ("", "verify")
    return OutcomeUnknownError(
        f"{what}{hotfix} was committed at {address}, but the look after COMMIT failed, also on a fresh connection "
        f"({reason}). "
        f'The change was proved inside the transaction. Make sure:  {{"hotfix": "{hotfix}", "action": "{action}"}}'
    )


def string(text: str) -> str:
    """The text as an SQL string."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def shell_string(text: str) -> str:
    """The text as one word of a shell's command."""
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"


def quoted(name: str) -> str:
    """The name as an SQL identifier, quoted always."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def defect(error: Exception, place: str) -> InternalError:
    """Of the original only the class and the place: nobody has checked its text for secrets."""
    return InternalError(
        f"pg-hotfix has a defect ({type(error).__name__} at {place}). A transaction that was open is rolled back; "
        "whether one was committed before is not known. "
        'See what is there with {"action": "plan"}, and report this line.'
    )
