"""A dashboard on 127.0.0.1: a page that does with the button's widget what CloudWatch does, and all that is behind it.

The button's function runs in this process: it is nothing but its own source and boto3, so a build could add no error,
and the emulator, which takes one request at a time, would hide what two clicks at once do.
"""

import contextlib
import http.server
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast
from unittest import mock

from laptop.aws import CREDENTIALS, FakeAws, fake_aws
from laptop.build import build_if_changed
from laptop.emulator import EmulatedFunction, emulated_function
from laptop.environment import SECRET_NAME, local_environment, running_database, write_secret
from laptop.errors import LocalError
from laptop.functions import button
from laptop.machine import FUNCTIONS, Machine, running_machine
from laptop.places import PROJECT
from laptop.postgres import Server

PAGE = PROJECT / "laptop" / "dashboard.html"
ENDPOINT = f"{FUNCTIONS}:pg-hotfix-local-button"
TIMEOUT_SECONDS = 30.0
# Nobody who tries the page wants to wait as long as a deployed function does.
SHORT_LOCK_WAIT = {"LOCK_WAIT_SECONDS": "5"}
SHORT_MINUTE_SECONDS = 10.0


@dataclass(frozen=True)
class Context:
    """What the button uses of Lambda's context."""

    invoked_function_arn: str = ENDPOINT
    started: float = field(default_factory=time.monotonic)

    def get_remaining_time_in_millis(self) -> int:
        return int((TIMEOUT_SECONDS - (time.monotonic() - self.started)) * 1000)


def serve_until_interrupted(port: int) -> int:
    """The page was served until Ctrl-C."""
    with running_incident(port) as (_, url):
        print(f"The incident, on a dashboard: {url}\nCtrl-C ends it.", flush=True)
        threading.Event().wait()
    return 0


@contextlib.contextmanager
def running_incident(port: int) -> Iterator[tuple[Server, str]]:
    """Within the block the incident, as it began, is on the page of the URL."""
    build_if_changed()
    with running_database(fresh=True) as (server, login), fake_aws() as aws:
        secret_arn = aws.put_secret(SECRET_NAME, write_secret(server, login))
        environment = local_environment(server.ca_bundle, secret_arn, aws.endpoint_url) | SHORT_LOCK_WAIT
        with (
            emulated_function(environment) as function,
            running_dashboard(aws, function, port=port, minute_seconds=SHORT_MINUTE_SECONDS) as url,
        ):
            yield server, url


@contextlib.contextmanager
def running_dashboard(
    aws: FakeAws, function: EmulatedFunction, *, port: int = 0, minute_seconds: float = 60.0
) -> Iterator[str]:
    """Within the block the page answers at the URL, with the state machine behind its widget."""
    with (
        running_machine(aws, function, minute_seconds=minute_seconds) as machine,
        button_environment(machine),
        serving(port) as url,
    ):
        yield url


@contextlib.contextmanager
def button_environment(machine: Machine) -> Iterator[None]:
    """Within the block the button's function finds that machine."""
    environment = {
        "AWS_ENDPOINT_URL": machine.endpoint_url,
        "STATE_MACHINE_ARN": machine.arn,
        "ENVIRONMENT": "local",
        "SQL_DIR": str(PROJECT / "sql"),
    }
    with mock.patch.dict(os.environ, CREDENTIALS | environment):
        button.connect.cache_clear()
        # Made here, since boto3 makes no two clients at once.
        with contextlib.closing(button.connect()):
            yield
        button.connect.cache_clear()


@contextlib.contextmanager
def serving(port: int) -> Iterator[str]:
    """Within the block the page is served on 127.0.0.1. Yields its URL."""
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise LocalError(
            f"Port {port} is not free ({error.strerror}): ./pg-hotfix dashboard --port 0 finds one."
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    """The page, and behind it the one function that it may invoke."""

    def do_GET(self) -> None:
        if self.path != "/":
            self.send_error(404)
            return
        page = PAGE.read_text().replace("{{ENDPOINT}}", ENDPOINT)
        self.respond("text/html; charset=utf-8", page)

    def do_POST(self) -> None:
        # No page of another site can send JSON here, or call the server by another name.
        own = f"127.0.0.1:{cast('http.server.HTTPServer', self.server).server_port}"
        if self.headers.get("Content-Type") != "application/json" or self.headers.get("Host") != own:
            self.send_error(403)
            return
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if call["endpoint"] != ENDPOINT:
            self.send_error(404)
            return
        self.respond("application/json", json.dumps(invoke_button(call["event"])))

    def respond(self, content_type: str, body: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """One line for each request is of no use to anybody."""


def invoke_button(event: Any) -> str:
    return button.lambda_handler(event, cast("Any", Context()))
