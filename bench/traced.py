"""`python -S traced.py ... -m awslambdaric app.lambda_handler`: the same runtime, which says on its error output when
it does what. Python's audit events tell, so that nothing of the function is changed.

https://docs.python.org/3/library/audit_events.html
"""

import os
import runpy
import sys
import time

SAID = "TRACED"
# The import of a module begins when its bytecode is opened.
IMPORTS = {f"{name}.cpython-313.pyc": name for name in ("app", "hotfix", "session", "credentials")}
seen: set[str] = set()


def note(name: str) -> None:
    """It is said when that began, the first time it does."""
    if name not in seen:
        seen.add(name)
        os.write(2, f"{SAID} {name} {time.monotonic():.6f}\n".encode())


def watch(event: str, details: tuple[object, ...]) -> None:
    if event == "open":
        name = str(details[0]).rpartition("/")[2]
        if name in IMPORTS:
            note(f"import {IMPORTS[name]}")
        elif name.endswith(".sql"):
            note("file")
    elif event == "socket.connect" and isinstance(details[1], tuple):
        note(f"connect {details[1][1]}")


if __name__ == "__main__":
    note("runtime")
    sys.addaudithook(watch)
    sys.argv = sys.argv[sys.argv.index("-m") + 1 :]
    # As -m does: the folder in which the function lies comes first, not this one.
    sys.path[0] = os.getcwd()  # noqa: PTH109 - pathlib would be imported before its time
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
