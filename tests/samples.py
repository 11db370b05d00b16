"""What several tests show in the same words."""

from pg_hotfix.change.blocker import Blocker

# A transaction in the way, and as the response describes it.
FOUND_BLOCKER = Blocker(
    transaction="3/7",
    pid=4711,
    user="billing",
    application_name="nightly-report",
    state="idle in transaction",
    transaction_seconds=340.2,
    lock_mode="ACCESS SHARE",
    granted=True,
    waiting=False,
    table="public.drivers",
    prepared_transaction=None,
    autovacuum=None,
)
BLOCKER = FOUND_BLOCKER.describe()
