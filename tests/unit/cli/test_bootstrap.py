"""One sentence says what a machine lacks."""

import pytest

from cli.bootstrap import explain_unfit_machine
from laptop.binaries import explain_missing_libraries

GLIBC = ("glibc", "2.36")


def test_a_machine_with_everything_is_fit() -> None:
    assert explain_unfit_machine("Linux", "x86_64", GLIBC, (3, 11)) is None
    assert explain_unfit_machine("Linux", "aarch64", ("glibc", "2.34"), (3, 13)) is None


@pytest.mark.parametrize(
    ("system", "machine", "libc", "python", "sentence"),
    [
        (
            *("Darwin", "arm64", ("", ""), (3, 13)),
            "This command needs Linux on x86_64 or aarch64, and this is Darwin on arm64: use a container.",
        ),
        (
            *("Linux", "x86_64", GLIBC, (3, 9)),
            "This command needs python3 3.11 or later, and this is 3.9: use Debian 12, Ubuntu 24.04 or later.",
        ),
        (
            *("Linux", "x86_64", ("glibc", "2.31"), (3, 11)),
            "This command needs glibc 2.34 or later, and this is glibc 2.31: use Debian 12, Ubuntu 24.04 or later.",
        ),
        (
            *("Linux", "x86_64", ("", ""), (3, 12)),
            (
                "This command needs glibc 2.34 or later, and this is another C library: use Debian 12, Ubuntu 24.04 or"
                " later."
            ),
        ),
    ],
)
def test_an_unfit_machine_is_told_what_to_use(
    system: str, machine: str, libc: tuple[str, str], python: tuple[int, int], sentence: str
) -> None:
    assert explain_unfit_machine(system, machine, libc, python) == sentence


def test_missing_libraries_are_named_once_with_the_packages_to_install() -> None:
    ldd = (
        "/opt/postgres:\n\tlibxml2.so.2 => not found\n\tlibc.so.6 => /lib/libc.so.6 (0x0)\n"
        "/opt/psql:\n\tlibxml2.so.2 => not found\n\tlibssl.so.3 => not found\n"
    )
    assert explain_missing_libraries(ldd, "PostgreSQL 16") == (
        "PostgreSQL 16 needs libssl.so.3, libxml2.so.2, which this machine does not have: "
        "apt-get install libssl3 libxml2"
    )


def test_nothing_is_said_when_every_library_is_found() -> None:
    assert explain_missing_libraries("\tlibc.so.6 => /lib/libc.so.6 (0x0)\n", "PostgreSQL 16") is None
