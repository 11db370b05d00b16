"""The id of a hotfix: the stem of its file, in the form of a Prisma migration directory.

A module of its own, because the command line reads it too, where Python 3.11 must do.
"""

import re

# Nothing in it can be a path or SQL. A file name may have 255 bytes.
HOTFIX_ID = re.compile(r"[0-9]{14}_[a-z0-9_]{1,200}")
