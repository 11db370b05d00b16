"""Every error that an operator can meet, with its whole text, grouped by class.

The class name is the error's name: state machines, alarms and scripts match it. A text says what happened, what state
the database is in, and what to do. "Nothing was changed." is said only where no COMMIT was sent. The last line is
`then`, a command to paste: app.py writes it, since it knows the request and the stack.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, ClassVar

from pg_hotfix.listing import LOGGED_OBJECTS, counted, first_few
from pg_hotfix.quoting import quoted, string

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UNTOUCHED = "Nothing was contacted and nothing was changed."
UNCHANGED = "Nothing was changed."
ROLLED_BACK = "Nothing was changed: the server rolls back."
NOT_CONTACTED = "Nothing was changed: the database was not contacted."

# The last line. In braces stands what next_command.py makes of the request.
AGAIN = "Run it again:  {again}"
REPAIRED = "When that is done, run it again:  {again}"
OTHER = "See what one of them would do:  {other}"
PLAN = "See what is there now:  {plan}"
APPLY = "Apply it:  {apply}"
VERIFY = "Check that it is there:  {verify}"
FORCE = "To drop it all the same, with everything in it, for good:  {force}"
HELP = "See the actions and options:  ./pg-hotfix --help"
LIST = "Write the list of expected columns, and deploy it:  ./pg-hotfix expect-schema schema.sql"

WRITERS_ENDPOINT = (
    "Put the writer's endpoint into the secret or the stack's parameter DatabaseHost:  "
    "aws rds describe-db-clusters --query 'DBClusters[].Endpoint'"
)
OWN_ENDPOINT = (
    "Put the instance's own endpoint into the secret or the stack's parameter DatabaseHost:  "
    "aws rds describe-db-instances --query 'DBInstances[].Endpoint.Address'"
)
POOLER = f"A pooler such as PgBouncer answers at this address, not PostgreSQL. {OWN_ENDPOINT}"


def prove(file: str) -> str:
    """The last line for a file that must be corrected; the gate's list is made by a command of its own."""
    if file == "schema.expect":
        return LIST
    path = shlex.quote(f"sql/{file}").replace("{", "{{").replace("}", "}}")
    return f"Prove the corrected file, and deploy it:  ./pg-hotfix prove {path}"


class HotfixError(Exception):
    """A failure with a text for people and, in `facts`, the same as data for the log. Neither holds a secret or row
    data. `then` is the text's last line, still without the command."""

    retryable: ClassVar[bool] = False
    then: str = REPAIRED

    def __init__(self, message: str, *, then: str | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.then = then or self.then
        self.facts: dict[str, Any] = facts

    def add_command(self, commands: Mapping[str, str]) -> None:
        """The text is complete: it ends in the command to type next."""
        self.message = f"{self.message}\n{self.then.format_map(commands)}"
        self.args = (self.message,)


class RequestError(HotfixError):
    """The event is not a request that pg-hotfix knows. Nothing was contacted."""

    then = HELP


def bad_request(what: str, advice: str) -> RequestError:
    return RequestError(f"{what}. {UNTOUCHED} {advice}")


class UnknownHotfixError(HotfixError):
    """No file with this id is deployed with the function. Nothing was contacted."""


def unknown_hotfix(hotfix: str, known: Sequence[str]) -> UnknownHotfixError:
    packaged = "\n".join(f"  {name}" for name in known) or "  (none)"
    return UnknownHotfixError(
        f"The function has no hotfix {hotfix}. {UNTOUCHED} It has these:\n{packaged}\n"
        f"{'Use one of these ids, or add' if known else 'Add'} sql/{hotfix}.sql, have it reviewed, and deploy it.",
        then=OTHER if known else REPAIRED,
    )


class HotfixFileError(HotfixError):
    """A deployed file cannot be used as it is. Nothing was changed, unless the text says so."""


def bad_file(file: str, what: str, advice: str) -> HotfixFileError:
    return HotfixFileError(f"sql/{file} {what}. {UNTOUCHED} {advice}", then=prove(file))


def no_way_back(hotfix: str, way_back: Sequence[str]) -> HotfixFileError:
    lines = "\n".join(f"  -- revert: {line}" for line in way_back)
    return HotfixFileError(
        f"sql/{hotfix}.sql has no revert line, so no reviewed SQL undoes it. {UNTOUCHED} If these lines are right, "
        f"write them at the head of the file, and have it reviewed:\n{lines}",
        then=prove(f"{hotfix}.sql"),
    )


def bad_column(file: str, column: str, what: str, advice: str) -> HotfixFileError:
    return HotfixFileError(f"sql/{file} expects {column} {what}. {UNCHANGED} {advice}", then=prove(file))


def bad_type(file: str, column: str, column_type: str, reason: str) -> HotfixFileError:
    what = f"to have the type {column_type}, which PostgreSQL does not accept for a column ({reason})"
    return bad_column(
        file, column, what, "Write the type as in CREATE TABLE, such as timestamptz, numeric(10,2) or text[]."
    )


def bad_expression(file: str, column: str, what: str, column_type: str, refusal: str) -> HotfixFileError:
    return bad_column(
        file,
        column,
        f"{what}, which PostgreSQL does not accept for a column of the type {column_type} ({refusal})",
        "Correct it in the file. Write every name with its schema, except PostgreSQL's own names.",
    )


def null_in_rows(file: str, column: str, table: str) -> HotfixFileError:
    return HotfixFileError(
        f"sql/{file} adds {column} as NOT NULL without a default, and {table} has rows: PostgreSQL refuses that "
        f"(23502). {UNCHANGED} Give the column a default, or remove NOT NULL, in the SQL and in the expect line.",
        then=prove(file),
    )


def character_missing(file: str, sign: str, line: int, database: str, encoding: str) -> HotfixFileError:
    code = f"U+{ord(sign):04X}"
    shown = f'"{sign}" ({code})' if sign.isprintable() else code
    return HotfixFileError(
        f"sql/{file} contains {shown} in line {line}, and the encoding {encoding} of the database {database} has no "
        f"such character. {UNCHANGED} Write that line without it; a comment may keep it.",
        then=prove(file),
    )


def file_ended_transaction(hotfix: str) -> HotfixFileError:
    return HotfixFileError(
        f"sql/{hotfix}.sql ended the transaction in which it ran. PostgreSQL has committed what the file did before "
        "that, without proof. Remove the transaction control from the file.",
        then=PLAN,
    )


def history_differs(hotfix: str, table: str) -> HotfixFileError:
    return HotfixFileError(
        f"{hotfix} cannot be recorded: {table} has it as applied, with the checksum of another file. {UNCHANGED} "
        f"Compare sql/{hotfix}.sql with prisma/migrations/{hotfix}/migration.sql. Give this change an id of its own, "
        "or make both files the one that was applied. To add the column now, apply without --record.",
        then=APPLY,
    )


class ConfigurationError(HotfixError):
    """A setting of the function is missing or out of bounds, or the server does not keep the session's limits. Nothing
    was changed."""


def bad_setting(name: str, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(f"{name} {what}. {UNTOUCHED} {advice}")


def no_list(file: str) -> ConfigurationError:
    return ConfigurationError(
        f"The function has no sql/{file}, the list of the columns that the application expects. {UNTOUCHED} Write it "
        "from the application's schema.",
        then=LIST,
    )


def too_little_time(remaining_ms: int, needed_ms: int) -> ConfigurationError:
    return ConfigurationError(
        f"The function has {remaining_ms} ms left, and needs at least {needed_ms} ms to work and to report. "
        f"{UNCHANGED} Raise the Timeout of MigrateFunction in template.yaml, and deploy."
    )


def pooler_in_front(address: str, reason: str = "") -> ConfigurationError:
    said = f" ({reason})" if reason else ""
    return ConfigurationError(
        f"A pooler such as PgBouncer stands between pg-hotfix and the database {address}{said}. Then the server "
        f"ignores the time limits, or keeps them for another client. {UNCHANGED} {OWN_ENDPOINT}"
    )


def limit_not_in_force(address: str, name: str, asked_ms: int, found_ms: int) -> ConfigurationError:
    return ConfigurationError(
        f"The server of {address} does not use the limit that pg-hotfix set: {name} is {found_ms} ms"
        f"{'' if found_ms else ' (0 means no limit)'}, and must be {asked_ms} ms. {UNCHANGED} Without it a run could "
        f"block other sessions. {OWN_ENDPOINT}"
    )


def startup_refused(address: str, sqlstate: str, message: str) -> ConfigurationError:
    return ConfigurationError(
        f"The server of {address} refuses the settings that pg-hotfix starts a session with ({sqlstate}: {message}). "
        f"{UNCHANGED} pg-hotfix supports PostgreSQL 14 to 18, with an encoding that converts to UTF8. Compare:  SELECT "
        "pg_catalog.version(), pg_catalog.current_setting('server_encoding');"
    )


class SecretError(HotfixError):
    """The secret is missing, denied or unreadable. The database was not contacted."""


def secret_refused(arn: str, code: str, advice: str) -> SecretError:
    return SecretError(f"Secrets Manager refused to return {arn} ({code}). {NOT_CONTACTED} {advice}")


def secret_unreadable(arn: str, what: str) -> SecretError:
    return SecretError(
        f"The secret {arn} {what}. {NOT_CONTACTED} Store the JSON that RDS writes (username, password, host, port, "
        "dbname), or a URL postgresql://user:password@host:5432/name with %XX for special characters, "
        'or {"DATABASE_URL": "<that URL>"}.'
    )


def secret_lacks(arn: str, field: str, parameter: str) -> SecretError:
    return SecretError(
        f"The secret {arn} has no {field}, and the stack's parameter {parameter} is empty. {NOT_CONTACTED} Set that "
        "parameter, and deploy."
    )


class SecretUnavailableError(HotfixError):
    """Secrets Manager did not answer. The database was not contacted."""

    retryable = True
    then = AGAIN


def secret_unavailable(arn: str, code: str) -> SecretUnavailableError:
    return SecretUnavailableError(
        f"Secrets Manager did not answer for {arn} ({code}). {NOT_CONTACTED} From a VPC the function reaches it only "
        "through an interface endpoint or a NAT gateway. If the VPC has neither, deploy with "
        "CreateSecretsManagerEndpoint=true."
    )


class DatabaseUnavailableError(HotfixError):
    """The database cannot be reached, the connection was lost before the SQL was sent, or the server failed. Nothing
    was changed: the server rolls back."""

    retryable = True
    then = AGAIN


def database_unavailable(address: str, reason: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"Cannot connect to the database {address} ({reason}). {UNCHANGED} If it keeps failing, check that the "
        "instance is available and that its security group lets the function in."
    )


def connection_lost(address: str, reason: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"The connection to the database {address} was lost before COMMIT ({reason}). {ROLLED_BACK}"
    )


def arrived_late(address: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"Every message to the database {address} arrived more than 0.5 s late, so the server refused each of them "
        "until the run had no time left. Nothing was changed, and no lock was held. If it keeps failing, the network "
        "or the server is too slow: look at the instance's CPU and connections."
    )


def server_in_trouble(address: str, reason: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"The server of the database {address} failed ({reason}). {ROLLED_BACK} If it keeps failing, look at the "
        "instance's storage, memory and log."
    )


def server_not_ready(address: str, reason: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"The server of the database {address} takes no connections now ({reason}). {UNCHANGED} If it keeps failing, "
        "look at the instance's events:  aws rds describe-events --source-type db-instance"
    )


SEE_CONNECTIONS = (
    "see who holds the connections:  SELECT usename, application_name, state, count(*) FROM "
    "pg_catalog.pg_stat_activity GROUP BY 1, 2, 3 ORDER BY 4 DESC;"
)


def no_connection_left(
    address: str, database: str, user: str, sqlstate: str, message: str, limit: str | None
) -> DatabaseUnavailableError:
    """`limit`: "role" or "database" if that has reached its own limit, None if the server has."""
    advice = {
        "role": f"raise the role's limit:  ALTER ROLE {quoted(user)} CONNECTION LIMIT -1;",
        "database": f"raise the database's limit:  ALTER DATABASE {quoted(database)} CONNECTION LIMIT -1;",
    }.get(limit or "", SEE_CONNECTIONS)
    return DatabaseUnavailableError(
        f"The database {address} has no connection left for {user} ({sqlstate}: {message}). {UNCHANGED} If it keeps "
        f"failing, {advice}"
    )


def pooler_unavailable(address: str, reason: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"The pooler in front of the database {address} gave no connection ({reason}). {UNCHANGED} {POOLER}"
    )


def cancelled_by_replay(address: str, reason: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"The replica {address} cancelled a query to go on with what it receives from the writer ({reason}). "
        f"{UNCHANGED} {WRITERS_ENDPOINT}"
    )


class TlsError(HotfixError):
    """TLS failed, or the server's certificate could not be verified. No credentials were sent."""


def certificate_not_verified(host: str, port: int, reason: str) -> TlsError:
    return TlsError(
        f"The certificate of {host}:{port} does not verify: {reason}. No credentials were sent. {UNCHANGED} If RDS has "
        "a new root certificate, fetch it, and deploy:  make update-ca-bundle  Otherwise find out who answers at this "
        "address."
    )


def host_name_mismatch(host: str, port: int, reason: str) -> TlsError:
    return TlsError(
        f"The server at {host}:{port} presents a certificate for another name: {reason}. No credentials were sent. "
        f"{UNCHANGED} An IP address or an alias is not in the certificate. {OWN_ENDPOINT}"
    )


def tls_not_offered(host: str, port: int) -> TlsError:
    return TlsError(
        f"The server at {host}:{port} offers no TLS, and pg-hotfix never connects without it. No credentials were "
        f"sent. {UNCHANGED} Turn TLS on at the server; RDS always offers it, so the address in the secret or in the "
        "stack's parameter DatabaseHost may be wrong."
    )


def tls_failed(host: str, port: int, reason: str) -> TlsError:
    return TlsError(
        f"TLS with {host}:{port} failed: {reason}. No credentials were sent. {UNCHANGED} The server must speak TLS 1.2 "
        "or later: check its ssl_min_protocol_version, and what stands between."
    )


class LoginError(HotfixError):
    """The server refused the login, also after the secret was read again, or does not let this role into this database.
    Nothing was changed."""


COMPARE = "Compare its password with the secret:  aws secretsmanager describe-secret --secret-id {arn}"
# By words of the server's message; PostgreSQL translates no name of a method. See auth_failed and ClientAuthentication
# in https://github.com/postgres/postgres/blob/master/src/backend/libpq/auth.c
LOGIN_ADVICE = {
    "pg_hba.conf": "No line of the server's pg_hba.conf lets this role in from this host with TLS and a password. "
    "Correct the file, and load it:  SELECT * FROM pg_catalog.pg_hba_file_rules;  SELECT pg_catalog.pg_reload_conf();",
    "PAM": "RDS uses PAM for a role with rds_iam: it logs in with an IAM token, not with a password. To log in with "
    "the secret's password:  REVOKE rds_iam FROM {role};",
    "not permitted": "Let the role log in:  ALTER ROLE {role} LOGIN;",
    "does not exist": "Correct username in the secret, or create the role:  CREATE ROLE {role} LOGIN PASSWORD '...';",
    "": "The server's pg_hba.conf chooses how this role logs in. pg-hotfix sends the secret's password, and has no "
    f"client certificate. {COMPARE}",
}
CREDENTIALS_DIFFER = (
    "The role does not exist, has another password, or its password has expired:  "
    f"SELECT rolvaliduntil FROM pg_catalog.pg_roles WHERE rolname = {{user}};  {COMPARE}"
)


def login_refused(
    address: str, user: str, sqlstate: str, message: str, arn: str, *, by_pooler: bool = False
) -> LoginError:
    """`message` names role, host and database only. `by_pooler`: a pooler wrote it, not PostgreSQL."""
    advice = next(text for words, text in LOGIN_ADVICE.items() if words in message)
    if by_pooler or sqlstate == "28P01":
        advice = POOLER if by_pooler else CREDENTIALS_DIFFER
    return LoginError(
        f"The database {address} refused the login of {user} ({sqlstate}: {message}), also after the secret was read "
        f"again. {UNCHANGED} {advice.format(role=quoted(user), user=string(user), arn=arn)}"
    )


def database_missing(address: str, user: str, sqlstate: str, message: str, *, by_pooler: bool = False) -> LoginError:
    advice = (
        "Correct dbname in the secret, or the stack's parameter DatabaseName. These databases exist:  SELECT datname "
        "FROM pg_catalog.pg_database;"
    )
    return LoginError(
        f"{user} cannot connect to the database {address} ({sqlstate}: {message}). {UNCHANGED} "
        f"{POOLER if by_pooler else advice}"
    )


def database_refused(address: str, database: str, user: str, sqlstate: str, message: str) -> LoginError:
    return LoginError(
        f"{user} may not connect to the database {address} ({sqlstate}: {message}). {UNCHANGED} Grant it:  "
        f"GRANT CONNECT ON DATABASE {quoted(database)} TO {quoted(user)};"
    )


def database_closed(address: str, database: str, sqlstate: str, message: str) -> LoginError:
    return LoginError(
        f"The database {address} accepts no connections ({sqlstate}: {message}). {UNCHANGED} Find out who closed it; a "
        "database whose DROP was interrupted can only be dropped. To open it:  "
        f"ALTER DATABASE {quoted(database)} WITH ALLOW_CONNECTIONS true;"
    )


def scram_failed(address: str, user: str) -> LoginError:
    return LoginError(
        f"The server of the database {address} did not prove that it knows the password of {user}, so pg-hotfix ended "
        f"the login. {UNCHANGED} Find out who answers at this address. If it is the right server, set the password of "
        f"the secret for the role again:  ALTER ROLE {quoted(user)} PASSWORD '...';"
    )


class NotOwnerError(HotfixError):
    """The role lacks a privilege that the hotfix needs (SQLSTATE 42501). Nothing was changed."""


def not_owner(table: str, owner: str, user: str, line: str, *, is_member: bool) -> NotOwnerError:
    """`line`: SQL that gives the role the owner's rights. `is_member`: it is one, and inherits nothing."""
    though = f"; {user} is a member of {owner}, but does not inherit its rights" if is_member else ""
    return NotOwnerError(
        f"{user} does not own {table}: {owner} does, and ALTER TABLE needs the owner's rights{though}. {UNCHANGED} "
        f"As an administrator, give the role these rights:  {line}"
    )


def owned_by_other(table: str, tables_in_sql: Sequence[str], owner: str, user: str, why: str) -> NotOwnerError:
    """`why` no role of the application can be a member of the owner."""
    return NotOwnerError(
        f"{user} does not own {table}: {owner} does, which {why}, and ALTER TABLE needs the owner's rights. "
        f"{UNCHANGED} Give the {'table' if len(tables_in_sql) == 1 else 'tables'} to a role of the application:  "
        + "  ".join(f"ALTER TABLE {table_in_sql} OWNER TO {quoted(user)};" for table_in_sql in tables_in_sql)
    )


def lacks(user: str, privilege: str, to_grant: str) -> NotOwnerError:
    return NotOwnerError(f"{user} lacks {privilege}. {UNCHANGED} Grant it:  GRANT {to_grant} TO {quoted(user)};")


def no_usage(schema: str, user: str) -> NotOwnerError:
    return lacks(user, f"USAGE on the schema {schema}", f"USAGE ON SCHEMA {quoted(schema)}")


def no_create(schema: str, user: str) -> NotOwnerError:
    privilege = f"CREATE on the schema {schema}, and the file creates an index or a sequence there"
    return lacks(user, privilege, f"CREATE ON SCHEMA {quoted(schema)}")


def no_references(table_in_sql: str, user: str) -> NotOwnerError:
    return lacks(
        user, f"REFERENCES on {table_in_sql}, and the file adds a foreign key to it", f"REFERENCES ON {table_in_sql}"
    )


def no_select_privilege(column: str, table_in_sql: str, user: str) -> NotOwnerError:
    return lacks(user, f"SELECT on {column}; the column itself is as expected", f"SELECT ON {table_in_sql}")


def no_lock_privilege(table: str, table_in_sql: str, user: str) -> NotOwnerError:
    return NotOwnerError(
        f"{user} owns {table}, but its rights UPDATE, DELETE and TRUNCATE were revoked. LOCK TABLE needs one of them. "
        f"{UNCHANGED} Grant one:  GRANT UPDATE ON {table_in_sql} TO {quoted(user)};"
    )


def type_not_usable(column: str, type_shown: str, type_in_sql: str, user: str) -> NotOwnerError:
    return lacks(user, f"USAGE on the type {type_shown} of {column}", f"USAGE ON TYPE {type_in_sql}")


def history_forbidden(hotfix: str, table: str, table_in_sql: str, rights: Sequence[str], user: str) -> NotOwnerError:
    privilege = f"{' and '.join(rights)} on {table}, so {hotfix} cannot be recorded"
    return lacks(user, privilege, f"{', '.join(rights)} ON {table_in_sql}")


def permission_denied(user: str, message: str) -> NotOwnerError:
    return NotOwnerError(
        f"{user} lacks a privilege (42501: {message}). {UNCHANGED} Grant it, or let pg-hotfix log in as the role that "
        "owns the table."
    )


class ReadOnlyDatabaseError(HotfixError):
    """The server is a replica, or read-only. Nothing was changed."""


def read_only(address: str, reason: str) -> ReadOnlyDatabaseError:
    return ReadOnlyDatabaseError(
        f"The database {address} cannot be changed: {reason}. {UNCHANGED} After a failover, run it again. If that "
        f"fails as well, the address is not the writer's. {WRITERS_ENDPOINT}"
    )


class LockBusyError(HotfixError):
    """The locks were not free in the time that a run waits for them. Nothing was changed."""

    retryable = True
    then = AGAIN


def lock_busy(
    hotfix: str, tables: str, undone: str, in_the_way: Sequence[str], *, elsewhere: bool, further: bool, **figures: Any
) -> LockBusyError:
    """`undone`: what did not happen to the hotfix, such as "applied". `in_the_way`: lines of name_blockers.
    `elsewhere`: the file may need tables that nobody named. `further`: an attempt held its locks, and failed on one
    more. `figures` are for the log; others waited for `longest_stall_ms` at most."""
    waited, stall_ms = f"{figures['lock_wait_ms'] / 1000:.0f} s", figures["longest_stall_ms"]
    others = f"other sessions waited {stall_ms} ms at most" if stall_ms else "nobody waited"
    locked = f"{tables} stayed locked for {waited}, so {hotfix} was not {undone}"
    if further:
        more = f"{hotfix} needs one more lock, which was not free within {waited}"
        locked = f"{tables} could be locked, but {more}, so it was not {undone}"
    lines = list(in_the_way)
    if not lines and further:
        lines = ["pg-hotfix cannot see who holds that lock. Look for a table that a trigger or an event trigger uses."]
    elif not lines:
        also = "; another table that the file uses may be locked" if elsewhere else ""
        lines = [f"Nobody holds a lock on {tables} now{also}."]
    first = f"{locked}. Nothing was changed, and {others} behind this run."
    return LockBusyError("\n".join([first, *lines]), **figures)


def catalog_blocked(tables: str, in_the_way: Sequence[str], blockers: Sequence[Mapping[str, Any]]) -> LockBusyError:
    first = (
        f"{tables} could not be read: another session holds, or waits for, an ACCESS EXCLUSIVE lock on it. {UNCHANGED}"
    )
    return LockBusyError("\n".join([first, *in_the_way]), blockers=list(blockers))


class StatementTimeoutError(HotfixError):
    """The server cancelled a statement (SQLSTATE 57014), or ended the transaction because it took too long. Nothing was
    changed: the server rolls back."""


RAISE_LIMIT = "raise STATEMENT_TIMEOUT_MS of MigrateFunction in template.yaml, and deploy"
HINT_OF_TIME = (
    "A hotfix takes milliseconds. Look for a rewrite or a scan: a volatile default, SET NOT NULL, an index. "
    f"If the file is right, {RAISE_LIMIT}."
)


def statement_timeout(hotfix: str, message: str, limit_ms: int) -> StatementTimeoutError:
    return StatementTimeoutError(
        f"PostgreSQL cancelled {hotfix} (57014: {message}; the limit is {limit_ms} ms). {UNCHANGED} {HINT_OF_TIME}"
    )


def transaction_timeout(hotfix: str, limit_ms: int) -> StatementTimeoutError:
    return StatementTimeoutError(
        f"PostgreSQL ended the transaction of {hotfix} because it took longer than {limit_ms} ms. {ROLLED_BACK} "
        f"{HINT_OF_TIME}"
    )


def catalog_too_slow(address: str, message: str, took_ms: int, limit_ms: int) -> StatementTimeoutError:
    return StatementTimeoutError(
        f"PostgreSQL cancelled a catalog query of pg-hotfix after {took_ms} ms (57014: {message}; the limit is "
        f"{limit_ms} ms). {UNCHANGED} The hotfix file is not the cause: the server of {address} is overloaded, or its "
        f"catalog is bloated or very large. See the catalog's dead rows; if there are few, {RAISE_LIMIT}:  SELECT "
        "relname, n_dead_tup, last_autovacuum FROM pg_catalog.pg_stat_sys_tables ORDER BY n_dead_tup DESC LIMIT 5;"
    )


def cancelled_by_somebody(what: str, message: str, took_ms: int, limit_ms: int) -> StatementTimeoutError:
    return StatementTimeoutError(
        f"Another session cancelled {what} after {took_ms} ms, before its limit of {limit_ms} ms (57014: {message}). "
        f"{UNCHANGED} Find out who calls pg_cancel_backend on this server, such as a monitor of long queries."
    )


class SqlRefusedError(HotfixError):
    """PostgreSQL refused the SQL. Nothing was changed: the server rolls back."""


def reason_with(sqlstate: str, message: str, hint: str) -> str:
    return f"{sqlstate}: {message}" + (f"; hint: {hint.rstrip('.')}" if hint else "")


def sql_refused(hotfix: str, sqlstate: str, message: str, excerpt: str, hint: str = "") -> SqlRefusedError:
    """`hint`: the server's, if it holds no data."""
    where = f"\n{excerpt}\n" if excerpt else " "
    return SqlRefusedError(
        f"PostgreSQL refused {hotfix} ({reason_with(sqlstate, message, hint)}). {UNCHANGED}{where}Correct "
        f"sql/{hotfix}.sql, and have it reviewed.",
        then=prove(f"{hotfix}.sql"),
    )


WITHHELD_HERE = "its message is in the server's log, and withheld here because it may quote row data"


def refused_by_code(
    error: HotfixError, hotfix: str, sqlstate: str, function: str, trigger: str | None, switch: tuple[str, str] | None
) -> HotfixError:
    """The same error, with the function that raised it, and the `trigger` that called that. `switch`: SQL that switches
    an event trigger off and on."""
    who = f"The {trigger}" if trigger else f"The function {function}, which {hotfix} calls,"
    source = f"{sqlstate} from its function {function}" if trigger else sqlstate
    read = f"SELECT pg_catalog.pg_get_functiondef({string(function)}::pg_catalog.regprocedure);"
    advice, then = f"Read what it asks for, and correct sql/{hotfix}.sql:  {read}", prove(f"{hotfix}.sql")
    if switch:
        off, on = switch
        advice = f"Read what it asks for:  {read}  If its owner agrees, switch it off:  {off}  After the run:  {on}"
        then = REPAIRED
    return type(error)(
        f"{who} refused {hotfix} ({source}; {WITHHELD_HERE}). {UNCHANGED} {advice}",
        then=then,
        **({"trigger": trigger} if trigger else {}),
    )


def query_refused(sqlstate: str, message: str, hint: str = "") -> SqlRefusedError:
    reason = reason_with(sqlstate, message, hint)
    return SqlRefusedError(
        f"PostgreSQL refused a catalog query of pg-hotfix ({reason}). {UNCHANGED} pg-hotfix supports PostgreSQL 14 to "
        "18. Check the server's version, and the role's rights on pg_catalog:  SELECT pg_catalog.version();",
        refusal=reason,
    )


def catalog_not_readable(database: str, encoding: str, reason: str) -> SqlRefusedError:
    return SqlRefusedError(
        f"The catalog of the database {database} holds a name or a default that cannot be read as UTF-8 ({reason}); "
        f"the encoding of the database is {encoding}. {UNCHANGED} Find it among the columns that the file expects, and "
        "set it again:  SET client_encoding = 'UTF8'; ALTER TABLE ... ALTER COLUMN ... SET DEFAULT ...;",
        refusal=reason,
    )


def lock_table_full(what: str, message: str, setting: str) -> SqlRefusedError:
    """Another try meets the same limit, unless many other sessions end first."""
    return SqlRefusedError(
        f"PostgreSQL refused {what} because its lock table is full (53200: {message}; {setting} is too low). "
        f"{UNCHANGED} Each table, partition and index that is altered needs a lock, and all sessions share the room. "
        "Raise the setting in the instance's parameter group, and reboot:  aws rds "
        "modify-db-parameter-group --db-parameter-group-name <group> --parameters "
        f"ParameterName={setting},ParameterValue=1024,ApplyMethod=pending-reboot"
    )


class MismatchError(HotfixError):
    """A column is not what the file or the list expects. No DDL was run, or it was rolled back, or the text says that
    another session changed the column after COMMIT."""


def compared(column: Mapping[str, Any], indent: str = "  ", actual: str = "actual") -> list[str]:
    return [f"{indent}expected  {column['expected']}", f"{indent}{actual:<8}  {column['actual']}"]


def lines_to_paste(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"  -- expect: column {column['name']} {column['actual']}" for column in columns]


def mismatch(hotfix: str, differing: Sequence[Mapping[str, Any]], *, reverting: bool = False) -> MismatchError:
    """`differing`: the columns as the response shows them, a missing one with "missing" as `actual`."""
    lines = []
    for column in differing:
        is_missing = column["actual"] == "missing"
        what = f"is missing; {hotfix} expects it" if is_missing else f"exists but is not what {hotfix} expects"
        lines += [f"{column['name']} {what}.", *compared(column)]
    lines[0] += f" {UNCHANGED}"
    present = [column for column in differing if column["actual"] != "missing"]
    if not present:
        return MismatchError("\n".join(lines), then=APPLY, columns=list(differing))
    why, change = "ADD COLUMN IF NOT EXISTS keeps an existing column as it is.", "change"
    if reverting:
        why, change = "It is not what this hotfix adds, so revert will not drop it, even with force.", "drop"
    lines += [f"{why} If the actual column is right, correct the file:", *lines_to_paste(present)]
    lines += [f"Otherwise {change} the column by a separate migration."]
    return MismatchError("\n".join(lines), then=prove(f"{hotfix}.sql"), columns=list(differing))


def proof_failed(hotfix: str, differing: Sequence[Mapping[str, Any]], *, reverting: bool = False) -> MismatchError:
    """The file's SQL, or its revert lines, did not do what they promise."""
    names = " and ".join(column["name"] for column in differing)
    ran = f"The SQL was run and rolled back. {UNCHANGED}"
    if reverting:
        lines = [f"The revert lines of sql/{hotfix}.sql do not drop {names}. {ran} Correct them."]
    else:
        say = "line says" if len(differing) == 1 else "lines say"
        lines = [f"sql/{hotfix}.sql does not create {names} as its expect {say}. {ran}"]
        for column in differing:
            lines += [f"  {column['name']}", *compared(column, "    ", "made")]
        made = [column for column in differing if column["actual"] != "missing"]
        lines += ["Correct its SQL, or its expect line if what was made is right:" if made else "Correct its SQL."]
        lines += lines_to_paste(made)
    return MismatchError("\n".join(lines), then=prove(f"{hotfix}.sql"), columns=list(differing))


def changed_since(
    hotfix: str, differing: Sequence[Mapping[str, Any]] = (), reason: str | None = None, *, reverting: bool = False
) -> MismatchError:
    done = "reverted" if reverting else "applied"
    lines = [f"{hotfix} was {done} and committed. Another session has changed the table after that: find out who did."]
    lines += [reason] if reason else []
    for column in differing:
        lines += [column["name"], *compared({**column, "expected": "missing"} if reverting else column)]
    return MismatchError("\n".join(lines), then=PLAN, columns=list(differing))


def child_differs(hotfix: str, table: str, child: str, column: Mapping[str, Any], line_to_paste: str) -> MismatchError:
    """`column`: the child's, as the response shows columns."""
    differs = f"It already has this column, and it differs from what {hotfix} expects"
    lines = [
        f"{child} is a partition or child of {table}. {differs}. {UNCHANGED}",
        f"  {column['name']}",
        *compared(column, "    "),
        f"ALTER TABLE would refuse it, or leave it different. Change it by a separate migration:  {line_to_paste}",
    ]
    return MismatchError("\n".join(lines), columns=[dict(column)])


LIMITS_OF_A_HOTFIX = (
    "A hotfix only adds columns. If the table has rows, a hotfix cannot add a column that is NOT NULL without a "
    "default, or whose default calls a function other than now()."
)


def schema_differs(
    database: str,
    found: str,
    differences: Sequence[str],
    hidden: int,
    commands: Sequence[str],
    columns: Sequence[Mapping[str, Any]],
    *,
    rest: bool,
) -> MismatchError:
    """`found`: how many columns are missing or different. `differences` and `commands`, which add what is missing, are
    lines; `hidden` more differences have none. `rest`: the commands do not do all of it."""
    lines = [f"The database {database} is not as the application expects: {found}. {UNCHANGED}", *differences]
    lines += [f"  and {hidden} more: is it the right database?"] if hidden else []
    if commands:
        lines += ["Write a hotfix for each table that lacks columns; have it reviewed, deploy it, and apply it:"]
    lines += commands
    if rest:
        which = "The rest" if commands else "This"
        lines += [f"{which} needs a separate migration. {LIMITS_OF_A_HOTFIX}"]
    lines += [
        "Do not deploy the application before this passes.",
        "If the list is wrong, write it again, and deploy it:  ./pg-hotfix expect-schema schema.sql",
    ]
    return MismatchError("\n".join(lines), columns=list(columns))


class RelationError(HotfixError):
    """The table is missing, the name is not a table's, or the table cannot take the column. Nothing was changed."""


def relation_missing(table: str, database: str, similar: Sequence[str]) -> RelationError:
    several = len(similar) > 1
    advice = (
        f"{'Tables with similar names exist' if several else 'A table with a similar name exists'}: "
        f"{', '.join(similar)}. Correct the name in the file, and deploy it."
        if similar
        else "Correct the name in the file, and deploy it. If this is the wrong database, correct dbname in the "
        "secret, or the stack's parameter DatabaseName."
    )
    return RelationError(f"The table {table} does not exist in the database {database}. {UNCHANGED} {advice}")


def wrong_table(table: str, what: str, advice: str) -> RelationError:
    return RelationError(f"{table} is {what}. {UNCHANGED} {advice} in the file, and deploy it.")


def relation_of_other_kind(table: str, kind: str) -> RelationError:
    return wrong_table(table, f"a {kind}, not a table", "Name an ordinary or partitioned table")


def system_table(table: str) -> RelationError:
    return wrong_table(table, "a table of PostgreSQL itself", "Name a table of the application")


def partition_named(table: str, root: str) -> RelationError:
    return wrong_table(table, f"a partition of {root}, and has its columns", f"Name {root} instead")


def typed_table(table: str, row_type: str, type_in_sql: str, change: str) -> RelationError:
    return RelationError(
        f"{table} is a typed table: its columns are those of the type {row_type}. {UNCHANGED} Change the type by a "
        f"separate migration:  ALTER TYPE {type_in_sql} {change} CASCADE;"
    )


def temporary_table(table: str, target: str) -> RelationError:
    below = "" if table == target else f" and inherits from {target}"
    return RelationError(
        f"{table} is a temporary table of another session{below}, and no other session can alter it. {UNCHANGED} Wait "
        "until that session ends or drops the table."
    )


def no_room(table: str, attributes: int, needed: int, most: int) -> RelationError:
    return RelationError(
        f"{table} has no room for {counted(needed, 'more column')}: PostgreSQL counts {attributes} of at most {most}, "
        f"dropped ones included (54011). {UNCHANGED} VACUUM FULL does not free these. Move the rows to a new table "
        "(CREATE TABLE ... (LIKE ... INCLUDING ALL)), or put the column into another table."
    )


def row_type_stored(table: str, table_in_sql: str, column: str, stored_in: str, computed: bool) -> RelationError:
    """`computed`: the column is to be generated, or an identity, and not to have a default."""
    line = f"ALTER TABLE {table_in_sql} ALTER COLUMN {quoted(column)} SET DEFAULT ...;"
    return RelationError(
        f"PostgreSQL cannot add a column with a value in every row to {table}, because the column {stored_in} stores "
        f"whole rows of {table} (0A000). {UNCHANGED} "
        + (
            f"Drop {stored_in}, or give it another type, before you add a generated column or an identity."
            if computed
            else f"Add the column without a default, and set the default for later rows in a second statement:  {line}"
        )
    )


def no_history(hotfix: str, database: str) -> RelationError:
    return RelationError(
        f"{hotfix} cannot be recorded: the database {database} has no _prisma_migrations in the schemas of the file's "
        f"tables or in the search_path. {UNCHANGED} If Prisma Migrate is to manage this database, baseline it:  "
        "prisma migrate resolve --applied <the first migration>  Otherwise apply without --record.",
        then=APPLY,
    )


def history_unusable(hotfix: str, table: str, reason: str) -> RelationError:
    return RelationError(
        f"{hotfix} cannot be recorded: {table} could not be read. {reason} {UNCHANGED} Find out whether that is a "
        "table of Prisma Migrate. If it is not, apply without --record.",
        then=APPLY,
    )


def history_has_trigger(hotfix: str, table: str, table_in_sql: str, trigger: str, user: str) -> RelationError:
    return RelationError(
        f"{hotfix} cannot be recorded: the trigger {trigger} on {table} calls a function of another role, which would "
        f"run with the rights of {user}. {UNCHANGED} Read the function. Give it to the owner of the application's "
        "tables, or drop the trigger, or apply without --record. To drop it:  "
        f"DROP TRIGGER {quoted(trigger)} ON {table_in_sql};"
    )


class PlanChangedError(HotfixError):
    """The plan no longer describes the file and the database. Nothing was changed."""

    then = PLAN


def plan_changed(hotfix: str, table: str) -> PlanChangedError:
    return PlanChangedError(
        f"The plan_hash is out of date: sql/{hotfix}.sql, the database or {table} has changed since that plan. "
        f"{UNCHANGED} Read a new plan, and apply with its plan_hash."
    )


class RevertRefusedError(HotfixError):
    """The revert would lose data, or Prisma would never add the column again. Nothing was changed."""

    then = FORCE


def column_used(hotfix: str, column: str) -> RevertRefusedError:
    return RevertRefusedError(
        f"{column} is in use: at least one row no longer holds what the column was added with, so {hotfix} was not "
        f"reverted. {UNCHANGED} Ask the owner of the data before you drop it."
    )


def usage_not_told(hotfix: str, column: str) -> RevertRefusedError:
    return RevertRefusedError(
        f"Cannot tell whether {column} is in use, so {hotfix} was not reverted: the table has rows, and PostgreSQL no "
        "longer knows what it gave them when the column was added (a volatile default, an identity, or the table was "
        f"rewritten since). {UNCHANGED} Ask the owner of the data before you drop it."
    )


def rows_not_seen(hotfix: str, tables: str, took_ms: int, limit_ms: int) -> RevertRefusedError:
    return RevertRefusedError(
        f"Cannot tell in time whether the rows of {tables} still hold what {hotfix} gave them, so it was not reverted: "
        f"reading them took {took_ms} ms. Under the lock, where all sessions wait, it may take {limit_ms} ms. "
        f"{UNCHANGED} Ask the owner of the data before you drop it unread, with --force.",
        then=AGAIN,
    )


def left_behind(
    hotfix: str, columns: str, staying: Sequence[str], droppable: Sequence[str], *, others: bool
) -> RevertRefusedError:
    """`droppable`: statements for what the file itself makes of these; `others`: there are more."""
    why = "PostgreSQL would refuse to drop it, or writes to its table would fail"
    lines = [f"Other objects need {columns}, so {hotfix} was not reverted: {why}. {UNCHANGED}"]
    lines += [f"  {one}" for one in first_few(staying)]
    if droppable:
        lines += [f"Let sql/{hotfix}.sql drop what it makes before the column, have it reviewed, and deploy it:"]
        lines += [f"  -- revert: {statement}" for statement in droppable]
    if others:
        lines += [f"Change or drop {'the others' if droppable else 'them'} by a migration."]
    lines += ["--force does not help here."]
    return RevertRefusedError("\n".join(lines), then=REPAIRED, staying=list(staying[:LOGGED_OBJECTS]))


def taken_along(hotfix: str, columns: str, going: Sequence[str], guessed: Sequence[str]) -> RevertRefusedError:
    lines = [f"Dropping {columns} would lose more than the column, so {hotfix} was not reverted. {UNCHANGED}"]
    if going:
        lines += ["PostgreSQL drops these with it, and the file does not make them:"]
        lines += [f"  {one}" for one in first_few(going)]
    if guessed:
        lines += ["The code of these uses the column's name, and may fail without it:"]
        lines += [f"  {one}" for one in first_few(guessed)]
    return RevertRefusedError(
        "\n".join(lines), going=list(going[:LOGGED_OBJECTS]), guessed=list(guessed[:LOGGED_OBJECTS])
    )


def dependents_changed(hotfix: str, columns: str) -> RevertRefusedError:
    return RevertRefusedError(
        f"Another session has changed what depends on {columns} during this run, so {hotfix} was not reverted. "
        f"{UNCHANGED}",
        then=AGAIN,
    )


NEVER_ADDED_AGAIN = "every later prisma migrate deploy would skip it, and never add the column again"


def history_not_seen(hotfix: str, table: str, reason: str) -> RevertRefusedError:
    return RevertRefusedError(
        f"Cannot tell whether {table} has {hotfix} as applied, so it was not reverted: if it has, {NEVER_ADDED_AGAIN}. "
        f"{UNCHANGED} --force drops the column, whatever {table} and the rows hold. {reason}",
        then=AGAIN,
    )


def recorded_as_applied(hotfix: str, table: str, table_in_sql: str) -> RevertRefusedError:
    return RevertRefusedError(
        f"{table} has {hotfix} as applied, so it was not reverted: {NEVER_ADDED_AGAIN}. {UNCHANGED} prisma migrate "
        "resolve --rolled-back refuses an applied migration (P3012). To drop the column for good, write a migration. "
        "To let a later deploy add it again, delete the row first:  "
        f"DELETE FROM {table_in_sql} WHERE migration_name = {string(hotfix)};"
    )


class InternalError(HotfixError):
    """pg-hotfix itself has a defect. An open transaction is rolled back."""

    then = PLAN


def defect(error: Exception, place: str) -> InternalError:
    """The original gives only its class and its place: its text may hold a secret."""
    return InternalError(
        f"pg-hotfix has a defect ({type(error).__name__} at {place}). The server rolls back an open transaction; one "
        "that was committed before stays. Report this line."
    )


class OutcomeUnknownError(HotfixError):
    """The connection was lost while the SQL and COMMIT were under way, or what was committed could not be read again.
    The change was applied completely or not at all."""

    retryable = True
    then = AGAIN


def outcome_unknown(hotfix: str, address: str, reason: str, *, reverting: bool = False) -> OutcomeUnknownError:
    done, what = ("reverted", "the revert took place") if reverting else ("applied", "the change is there")
    return OutcomeUnknownError(
        f"The connection to the database {address} was lost while {hotfix} was under way ({reason}). The "
        f"change was {done} completely or not at all. Run it again; it is safe. {done} or already_{done} means that "
        f"{what}."
    )


def commit_not_seen(hotfix: str, address: str, reason: str, *, reverting: bool = False) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"{'The revert of ' if reverting else ''}{hotfix} was committed at {address}, but the catalog could not be "
        f"read after COMMIT: this connection failed, and so did a new one ({reason}). The change was proved inside the "
        "transaction.",
        then=PLAN if reverting else VERIFY,
    )
