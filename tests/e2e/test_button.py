"""The dashboard button in a real browser: the page that does what CloudWatch does, the state machine, the built
function, and a real PostgreSQL."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from laptop.browser import find_chromium, open_page
from laptop.dashboard import running_dashboard
from pg_hotfix_button import style
from pg_hotfix_button.executions import describe, list_newest
from tests.conftest import PATIENCE_SECONDS, require_or_skip, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_stepfunctions import SFNClient
    from playwright.sync_api import Page

    from pg_hotfix_button.executions import Execution
    from tests.conftest import Database
    from tests.e2e.conftest import House

HOTFIX = "20260212092000_add_drivers_active_since"
COLUMN = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'drivers' AND column_name = 'active_since'"
HOSTILE = '"><img src=x onerror=window.hacked=1>'


@pytest.fixture(scope="module")
def chromium() -> str:
    executable = find_chromium()
    if executable is None:
        require_or_skip("there is no Chromium here: apt-get install chromium")
    return str(executable)


@pytest.fixture
def database(incident: Database) -> Iterator[Database]:
    """Who is in the way can be seen whole."""
    incident.run(f"GRANT pg_read_all_stats TO {incident.user}")
    yield incident
    incident.run(f"REVOKE pg_read_all_stats FROM {incident.user}")


@dataclass
class Dashboard:
    """The page, and what is behind it. `said` are the confirmations that were asked for; `answered` is all that the
    function sent."""

    page: Page
    client: SFNClient
    machine_arn: str
    said: list[str]
    answered: list[str]
    accept: bool = True

    def see(self, text: str) -> None:
        self.page.locator("#widget").get_by_text(text).first.wait_for()

    def see_in_popup(self, text: str) -> None:
        self.page.get_by_role("dialog").get_by_text(text).first.wait_for()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name).click()

    def press_until(self, name: str, text: str) -> None:
        """Presses the popup's button until the popup says so."""
        popup = self.page.get_by_role("dialog")

        def is_said() -> bool:
            self.page.wait_for_function("!document.querySelector('.calling')")
            if popup.get_by_text(text).count():
                return True
            popup.get_by_role("button", name=name).click()
            return False

        until(is_said, 0.5)

    def started(self, action: str) -> list[Execution]:
        names = [one for one in list_newest(self.client, self.machine_arn) if one["name"].startswith(f"{action}-")]
        return [describe(self.client, one["executionArn"]) for one in names]


@pytest.fixture
def dashboard(chromium: str, house: House, database: Database, no_secret_in_output: list[str]) -> Iterator[Dashboard]:
    """The page shows the incident."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(running_dashboard(house.aws, house.function, minute_seconds=2))
        client = stack.enter_context(contextlib.closing(house.aws.client("stepfunctions")))
        page = stack.enter_context(open_page(chromium))
        page.set_default_timeout(PATIENCE_SECONDS * 1000)  # A shared machine may be slow at any moment.
        (machine,) = client.list_state_machines()["stateMachines"]
        dashboard = Dashboard(page, client, machine["stateMachineArn"], [], no_secret_in_output)

        def confirm(dialog: Any) -> None:
            dashboard.said.append(dialog.message)
            if dashboard.accept:
                dialog.accept()
            else:
                dialog.dismiss()

        page.on("dialog", confirm)
        page.on("response", lambda response: dashboard.answered.append(response.text()))
        page.goto(url)
        yield dashboard


@contextlib.contextmanager
def reading(database: Database, application_name: str = "nightly-report") -> Iterator[int]:
    """Within the block a transaction that has read the table is open. Yields its pid."""
    with database.connect(database.user, database.password) as report:
        report.run(f"SET application_name = '{application_name}'")
        report.run("BEGIN")
        report.run("SELECT count(*) FROM drivers")
        pid: int = report.run("SELECT pg_backend_pid()")[0][0]
        yield pid
        report.run("ROLLBACK")


def test_the_incident_is_seen_and_fixed_by_a_click(dashboard: Dashboard, database: Database) -> None:
    page = dashboard.page
    dashboard.see("Not applied yet")
    dashboard.see("No, missing")
    dashboard.see("None yet.")

    dashboard.accept = False
    page.get_by_label("Reason").fill("INC-4711")
    page.get_by_label("Your name").fill("ana.souza")
    dashboard.press("Apply to local")
    where = f"local (database {database.name} on localhost)"
    assert dashboard.said == [f"Apply {HOTFIX} to {where}? It runs under a short lock, is proved, and committed."]
    dashboard.press("Refresh")
    page.wait_for_function("!document.querySelector('.calling')")
    assert dashboard.started("apply") == []
    assert page.get_by_role("dialog").count() == 0

    dashboard.accept = True
    dashboard.press("Apply to local")
    dashboard.see_in_popup("pg-hotfix · local")
    dashboard.press_until("Look again", "✓ Applied")
    dashboard.see_in_popup("public.drivers.active_since applied, committed and proved")
    assert page.get_by_role("dialog").get_by_role("listitem").all_inner_texts()[:3] == ["Plan", "Apply", "Verify"]
    assert database.run(COLUMN) == [[1]]

    dashboard.press("Close")
    dashboard.press("Refresh")
    dashboard.see("Already applied")
    assert page.get_by_role("button", name="Apply to local").count() == 0
    row = page.get_by_role("row", name=f"apply {HOTFIX}").inner_text()
    assert all(said in row for said in ("✓ Applied", "ana.souza", "INC-4711"))

    dashboard.press(f"apply {HOTFIX}")
    dashboard.see_in_popup("✓ Applied")
    (execution,) = dashboard.started("apply")
    assert (execution.request["requested_by"], execution.request["reason"]) == ("ana.souza", "INC-4711")


def test_a_double_click_starts_one(dashboard: Dashboard, database: Database) -> None:
    dashboard.see("Not applied yet")
    with reading(database):
        # Playwright's own double click waits for the first confirmation to be gone, and then the popup is in the way.
        twice = "element => { element.click(); element.click(); }"
        dashboard.page.get_by_role("button", name="Apply to local").evaluate(twice)
        dashboard.see_in_popup("Running")
        dashboard.page.wait_for_function("!document.querySelector('.calling')")
        assert len(dashboard.said) == 2
        assert len(dashboard.started("apply")) == 1


def test_who_is_in_the_way_is_told_before_and_while_it_tries(dashboard: Dashboard, database: Database) -> None:
    with reading(database) as pid:
        dashboard.press("Refresh")
        dashboard.see(f"pid {pid} ({database.user}, nightly-report), in a transaction for ")
        dashboard.see(" s (idle in transaction), ACCESS SHARE on public.drivers.")
        dashboard.press("Apply to local")
        dashboard.see_in_popup("pg-hotfix · local")
        dashboard.press_until("Look again", "Apply: LockBusyError, tried")
        dashboard.see_in_popup("The state machine tries again after LockBusyError:")
        dashboard.see_in_popup(f"In the way: pid {pid} ({database.user}, nightly-report)")
        dashboard.press("Close")
        dashboard.press("Refresh")
        dashboard.see("Somebody has started an apply.")
        assert dashboard.page.get_by_role("button", name="Apply to local").count() == 0
        assert database.run(COLUMN) == [[0]]
    dashboard.press("Show its progress")
    dashboard.press_until("Look again", "✓ Applied")
    assert database.run(COLUMN) == [[1]]


def test_a_failure_is_shown_as_one(dashboard: Dashboard, database: Database) -> None:
    dashboard.see("Not applied yet")
    database.run_as_owner("ALTER TABLE drivers ADD COLUMN active_since text")
    dashboard.press("Apply to local")
    dashboard.see_in_popup("✗ Failed")
    dashboard.see_in_popup("MismatchError")
    dashboard.press("Close")
    dashboard.press("Refresh")
    dashboard.see("✗ The plan failed")
    dashboard.see("Failed: MismatchError")
    assert dashboard.page.locator("#widget").get_by_text("✓").count() == 0


def test_text_from_outside_stays_text(dashboard: Dashboard, database: Database) -> None:
    page = dashboard.page
    with reading(database, HOSTILE):
        dashboard.press("Refresh")
        dashboard.see(f", {HOSTILE})")
        # The page is replaced once more where a call is still under way.
        page.wait_for_function("!document.querySelector('.calling')")
        page.get_by_label("Reason").fill(f"r{HOSTILE}")
        page.get_by_label("Your name").fill(f"n{HOSTILE}")
        dashboard.press("Refresh")
        page.wait_for_function("!document.querySelector('.calling')")
        assert page.get_by_label("Reason").input_value() == f"r{HOSTILE}"
        dashboard.press("Apply to local")
        dashboard.see_in_popup(f"r{HOSTILE}")
        dashboard.press_until("Look again", "In the way")
        dashboard.press("Close")
    dashboard.press("Refresh")
    dashboard.see(f"n{HOSTILE}")
    assert page.evaluate("window.hacked") is None
    # The page takes out what could run, as CloudWatch does: there must have been nothing to take out.
    answers = [answer for answer in dashboard.answered if "pgh-light" in answer]
    assert len(answers) >= 4
    assert [answer for answer in answers if "<img" in answer] == []


def test_the_dark_theme_is_dark_in_the_popup_too(dashboard: Dashboard) -> None:
    page = dashboard.page
    dashboard.see("Not applied yet")
    page.get_by_label("Dark").check()
    page.wait_for_selector("#widget .pgh-dark")
    dashboard.press("Apply to local")
    dashboard.see_in_popup("pg-hotfix · local")
    for place in ("#widget", "#popup"):
        colour = page.eval_on_selector(f"{place} .pgh-dark h2", "element => getComputedStyle(element).color")
        red, green, blue = (int(style.DARK["text"][position : position + 2], 16) for position in (1, 3, 5))
        assert colour == f"rgb({red}, {green}, {blue})"
    assert page.locator(".pgh-light").count() == 0


@pytest.mark.parametrize("columns", ["24", "12", "6"])
def test_the_widget_fits_its_width(dashboard: Dashboard, database: Database, columns: str) -> None:
    page = dashboard.page
    with reading(database):
        page.get_by_label("Columns").select_option(columns)
        dashboard.see("ACCESS SHARE on public.drivers.")
        page.wait_for_function("!document.querySelector('.calling')")
        wide = "[...document.querySelectorAll('#widget, #widget *')].filter(e => e.scrollWidth > e.clientWidth + 1 &&"
        assert page.evaluate(f"{wide} getComputedStyle(e).display !== 'inline').map(e => e.outerHTML)") == []


@pytest.mark.parametrize("pressed", ["a.btn", "a.btn button"])
def test_the_link_and_the_button_in_it_do_the_same(dashboard: Dashboard, pressed: str) -> None:
    """Whichever of the two CloudWatch leaves there or listens to."""
    dashboard.accept = False
    dashboard.see("Not applied yet")
    apply = dashboard.page.locator(f"#widget {pressed}", has_text="Apply to local")
    # By the mouse, in a corner of it, and as a click on that element alone.
    apply.click(position={"x": 4, "y": 4})
    assert len(dashboard.said) == 1
    apply.dispatch_event("click")
    assert len(dashboard.said) == 2
    assert dashboard.started("apply") == []


def test_the_keyboard_reaches_every_button(dashboard: Dashboard) -> None:
    dashboard.accept = False
    dashboard.see("Not applied yet")
    dashboard.page.get_by_label("Your name").focus()
    dashboard.page.keyboard.press("Enter")  # sends nothing
    dashboard.page.keyboard.press("Tab")
    dashboard.page.keyboard.press("Enter")
    assert len(dashboard.said) == 1
    assert dashboard.started("apply") == []
