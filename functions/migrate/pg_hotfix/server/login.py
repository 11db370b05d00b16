"""pg8000's connection, with passwords as libpq takes them."""

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
# The server takes the role from the startup message, and ignores what SCRAM says of it.
ANYBODY = b"*"


class LibpqConnection(Connection):  # type: ignore[misc]
    """A connection that logs in with every password that psql logs in with, and under every role's name."""

    user: bytes
    password: bytes
    # What a pooler said before it hung up: pg8000 forgets it, since it waits for the server to be ready again.
    last_words = ""

    def handle_AUTHENTICATION_REQUEST(self, data: bytes, context: Any) -> None:  # noqa: N802 - pg8000's name
        """scramp raises where SASLprep forbids a character. So it begins with a password that nobody forbids, and has
        the real one before it is asked for the proof.

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
    """PgBouncer says everything as 08P01 and, unlike PostgreSQL, without its place in the source.
    https://github.com/pgbouncer/pgbouncer/blob/master/src/client.c"""
    return fields.get("C") == "08P01" and "F" not in fields


def prepare_password(password: str) -> bytes:
    """The bytes that libpq and the server hash: SASLprep's, or the password's own where SASLprep forbids a character.

    Both look for what is forbidden before they normalize, unlike RFC 4013 and scramp, and make a space of U+200B, which
    RFC 3454 lists as a space and as nothing.
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
    """Whether it has right-to-left letters beside others, or does not begin and end with one."""
    if not any(map(stringprep.in_table_d1, text)):
        return False
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return not ends or any(map(stringprep.in_table_d2, text))
