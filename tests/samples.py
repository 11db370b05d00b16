"""What several tests show in the same words."""

from typing import Any

# A transaction in the way, as the response describes it.
BLOCKER: dict[str, Any] = {
    "pid": 4711,
    "user": "billing",
    "application_name": "nightly-report",
    "state": "idle in transaction",
    "transaction_seconds": 340.2,
    "lock_mode": "ACCESS SHARE",
    "granted": True,
    "waiting": False,
    "table": "public.drivers",
    "prepared_transaction": None,
    "autovacuum": None,
    "waits_for": [],
}
