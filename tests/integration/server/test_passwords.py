"""Every password that psql logs in with logs in here: the server itself has made the verifiers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import stringprep
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pg_hotfix.server.login import prepare_password
from tests.conftest import new_password, numbers

if TYPE_CHECKING:
    from collections.abc import Callable

    from laptop.postgres import Server
    from tests.conftest import Database, Outcome

pytestmark = pytest.mark.long_too

# Beside each the reason why scramp alone would refuse it, or hash something else.
PASSWORDS = {
    "a control character": "tab\tand \x07 bell",
    "a control character beside others": "größe\x07",
    "a control character beyond ASCII": "c1 \x85",
    "an unassigned code point": "thinking \U0001f914",
    "a private one": "private \ue000",
    "no character": "none \ufdd0",
    "a tag": "tag \U000e0041",
    "two directions": "\u05e9\u05dc\u05d5\u05dd and more",
    "right to left with a digit at its end": "\u05e9\u05dc\u05d5\u05dd1",
    "a display modifier": "\u202eback",
    "forbidden before it is normalized": "tone \u0340",
    "forbidden once it is normalized": "\u2100 and \u05e9\u05dc\u05d5\u05dd",
    "zero width space": "zero\u200bwidth",
    "nothing once it is mapped": "\u00ad\u2060",
    "a ligature": "\ufb01ne \u2168",
    "a space beyond ASCII": "no\u00a0break",
}


@pytest.mark.parametrize("password", PASSWORDS.values(), ids=PASSWORDS)
def test_a_password_that_sasl_forbids_logs_in(
    invoke: Callable[..., Outcome], database: Database, secrets_manager: Callable[..., str], password: str
) -> None:
    escaped = password.replace("'", "''")
    database.run(f"ALTER ROLE {database.user} PASSWORD '{escaped}'")
    secrets_manager(database.secret(password=f"{password}."))
    assert invoke("check").error_name == "LoginError"
    secrets_manager(database.secret(password=password))
    outcome = invoke("check")
    assert (outcome.text, outcome.result) == ("None", "ready")


def test_a_role_whose_name_sasl_forbids_logs_in(
    invoke: Callable[..., Outcome], database: Database, secrets_manager: Callable[..., str]
) -> None:
    name, password = f"\u00ad\u0340\x07{next(numbers)}", new_password()
    database.run(f'CREATE ROLE "{name}" LOGIN PASSWORD \'{password}\'; GRANT {database.user} TO "{name}"')
    try:
        secrets_manager(database.secret(username=name, password=password))
        assert invoke("check").result == "ready"
    finally:
        database.run(f'DROP ROLE "{name}"')


signs = st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from(
    "\u05d0\u05d1\u06271 \u00a0\u200b\u00ad\u0340\ufb01é"
)


@example("\U0002f868")  # Its decomposition was corrected after Unicode 3.2.
@example("".join(filter(stringprep.in_table_c12, map(chr, range(0x10000)))))
@example("".join(filter(stringprep.in_table_b1, map(chr, range(0x10000)))) + "é")
@given(st.text(alphabet=signs, min_size=1, max_size=12))
def test_any_password_is_hashed_as_the_server_hashes_it(server: Server, password: str) -> None:
    escaped = password.replace("'", "''")
    with server.connect() as admin:
        admin.run(f"BEGIN; SET standard_conforming_strings = on; CREATE ROLE anybody PASSWORD '{escaped}'")
        ((verifier,),) = admin.run("SELECT rolpassword FROM pg_authid WHERE rolname = 'anybody'")
        admin.run("ROLLBACK")
    iterations, salt, stored_key = verifier.replace(":", "$").split("$")[1:4]
    salted = hashlib.pbkdf2_hmac("sha256", prepare_password(password), base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    assert base64.b64encode(hashlib.sha256(client_key).digest()).decode() == stored_key
