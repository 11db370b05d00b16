"""pg8000's connection, with passwords as libpq handles them."""

from __future__ import annotations

import stringprep
import struct
import unicodedata
from typing import TYPE_CHECKING, Any

from pg8000.native import Connection

if TYPE_CHECKING:
    from collections.abc import Mapping

# https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-AUTHENTICATIONSASL
SASL = struct.pack("!i", 10)
# The server takes the role from the startup message, and ignores the user name in SCRAM.
ANYBODY = b"*"


class LibpqConnection(Connection):  # type: ignore[misc]
    """A connection that logs in with every password and every role name with which psql logs in."""

    user: bytes
    password: bytes
    # What a pooler said before it closed the connection. pg8000 loses that, since it waits for ReadyForQuery.
    last_words = ""

    def handle_AUTHENTICATION_REQUEST(self, data: bytes, context: Any) -> None:  # noqa: N802 - pg8000's name
        """SCRAM begins with a password that SASLprep allows, because scramp raises for a forbidden character. The real
        password is there before the server asks for the proof.

        https://www.postgresql.org/docs/current/sasl-authentication.html
        """
        if data[:4] != SASL:
            super().handle_AUTHENTICATION_REQUEST(data, context)
            return
        user, password = self.user, self.password
        self.user = self.password = ANYBODY
        try:
            super().handle_AUTHENTICATION_REQUEST(data, context)
        finally:
            self.user, self.password = user, password
        self.auth.password = prepare_password(password.decode())

    def handle_ERROR_RESPONSE(self, data: bytes, context: Any) -> None:  # noqa: N802 - pg8000's name
        super().handle_ERROR_RESPONSE(data, context)
        fields = context.error.args[0]
        if fields.get("S") == "FATAL" and is_from_pooler(fields):
            self.last_words = fields.get("M", "")


def is_from_pooler(fields: Mapping[str, str]) -> bool:
    """PgBouncer sends every error as 08P01 and, unlike PostgreSQL, without a file name of its source.
    https://github.com/pgbouncer/pgbouncer/blob/master/src/client.c"""
    return fields.get("C") == "08P01" and "F" not in fields


def prepare_password(password: str) -> bytes:
    """The bytes that libpq and the server hash: those of SASLprep, or the password's own if SASLprep forbids a
    character.

    Unlike RFC 4013 and scramp, both check for forbidden characters before they normalize, and map U+200B to a space;
    RFC 3454 lists it as a space and as nothing.
    https://github.com/postgres/postgres/blob/master/src/common/saslprep.c
    """
    mapped = "".join(
        " " if stringprep.in_table_c12(sign) else sign
        for sign in password
        if stringprep.in_table_c12(sign) or not stringprep.in_table_b1(sign)
    )
    if password.isascii() or not mapped or any(map(is_forbidden, mapped)) or is_mixed(mapped):
        return password.encode()
    return unicodedata.normalize("NFKC", mapped).encode()


def is_forbidden(sign: str) -> bool:
    return (
        stringprep.in_table_a1(sign)
        or stringprep.in_table_c21_c22(sign)
        or stringprep.in_table_c3(sign)
        or stringprep.in_table_c4(sign)
        or stringprep.in_table_c5(sign)
        or stringprep.in_table_c6(sign)
        or stringprep.in_table_c7(sign)
        or stringprep.in_table_c8(sign)
        or stringprep.in_table_c9(sign)
    )


def is_mixed(text: str) -> bool:
    """Whether it mixes right-to-left letters with others, or does not begin and end with one."""
    if not any(map(stringprep.in_table_d1, text)):
        return False
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return not ends or any(map(stringprep.in_table_d2, text))
