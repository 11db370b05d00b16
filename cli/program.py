"""How this command was started: the launcher `pg-hotfix` tells by the environment."""

import os

# As its caller has typed it, so that a line to paste works in the same shell.
PROGRAM = os.environ.get("PG_HOTFIX_PROGRAM", "./pg-hotfix")
