"""Opens a session with what the settings and the secret say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.server.credentials import read_target
from pg_hotfix.server.limits import derive_limits
from pg_hotfix.server.session import Session, open_session
from pg_hotfix.server.sqlstates import LoginRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from pg_hotfix.settings import Settings


def log_in(settings: Settings, remaining_ms: Callable[[], int]) -> Session:
    """An open session. If the server refused the secret that a warm function remembered, it was read again.

    Raises:
        LoginError, SecretError, SecretUnavailableError, TlsError, ConfigurationError, DatabaseUnavailableError: nothing
        was changed.
    """
    target = read_target(settings)
    try:
        return open_session(target, derive_limits(settings, remaining_ms()), settings.ca_bundle)
    except LoginRefused as error:
        refused, refusal = target, error
    try:
        target = read_target(settings, again=True)
        if target != refused:
            return open_session(target, derive_limits(settings, remaining_ms()), settings.ca_bundle)
    except LoginRefused as error:
        refusal = error
    raise errors.login_refused(
        target.address, target.user, refusal.sqlstate, refusal.message, settings.secret_arn, by_pooler=refusal.by_pooler
    ) from refusal
