"""Takes the pictures of the button in docs/ again: the incident, a transaction in the way, and the fix."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page

from laptop.browser import find_chromium, open_page
from laptop.dashboard import running_incident
from laptop.errors import LocalError
from laptop.incident import APPLICATION, DATABASE
from laptop.places import PROJECT
from laptop.postgres import Server

DOCS = PROJECT / "docs"


def main() -> int:
    try:
        take_pictures()
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def take_pictures() -> None:
    executable = find_chromium()
    if executable is None:
        raise LocalError("There is no Chromium here: apt-get install chromium")
    with running_incident(port=0) as (server, url), open_page(executable) as page:
        page.on("dialog", lambda dialog: dialog.accept())
        grant_sight(server)
        with blocker(server):
            page.goto(url)
            page.get_by_label("Columns").select_option("24")
            page.get_by_role("button", name="Apply to local").wait_for()
            take(page, DOCS / "button-missing.png")
        page.get_by_label("Reason").fill("INC-4711")
        page.get_by_label("Your name").fill("ana.souza")
        page.get_by_role("button", name="Apply to local").click()
        page.get_by_role("dialog").get_by_text("✓ Applied").wait_for()
        page.get_by_role("button", name="Close").click()
        page.get_by_label("Dark").check()
        page.get_by_text("Already applied").wait_for()
        take(page, DOCS / "button-applied.png")


def take(page: Page, path: Path) -> None:
    page.wait_for_function("!document.querySelector('.calling')")
    page.locator("#card").screenshot(path=path)
    print(f"{path.relative_to(PROJECT)}  {path.stat().st_size // 1024} kB")


def grant_sight(server: Server) -> None:
    """The function sees what a blocker does, as docs/deploy.md proposes, and how large the table is."""
    with server.connect(DATABASE) as admin:
        admin.run(f"GRANT pg_read_all_stats TO {APPLICATION}")
        admin.run("ANALYZE drivers")


@contextlib.contextmanager
def blocker(server: Server) -> Iterator[None]:
    """Within the block a report is in the way of the table: it has read it, and its transaction is still open."""
    with server.connect(DATABASE) as report:
        report.run("SET application_name = 'nightly-report'")
        report.run("BEGIN")
        report.run("SELECT count(*) FROM drivers")
        yield
        report.run("ROLLBACK")


if __name__ == "__main__":
    sys.exit(main())
