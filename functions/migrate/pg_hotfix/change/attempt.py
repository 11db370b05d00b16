"""One attempt to take the locks and to run a job, or one wait until an attempt makes sense."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.change.in_transaction import Altered, alter_and_prove
from pg_hotfix.change.triggers import name_trigger

if TYPE_CHECKING:
    from pg_hotfix.change.job import Job
    from pg_hotfix.change.lock_wait import LockWait


def attempt(lock_wait: LockWait, job: Job) -> Altered | None:
    """The job is proved and committed. Or None: nothing was changed, this run has waited, and must look again.

    Raises:
        HotfixError, InUse: nothing was changed; or OutcomeUnknownError.
    """
    if lock_wait.must_wait_first:
        lock_wait.wait()
        return None
    lock_wait.begin_attempt()
    try:
        outcome = alter_and_prove(lock_wait.session, job, lock_wait.queue_wait_ms)
    except errors.HotfixError as error:
        raise name_trigger(lock_wait.session, job.hotfix, error) from error.__cause__
    if isinstance(outcome, Altered):
        return outcome
    lock_wait.wait(outcome)
    return None
