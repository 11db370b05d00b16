"""The function that calls the endpoint: what counts as a success, what is tried again, and what it never does."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import ssl
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import trustme
from botocore.exceptions import ConnectTimeoutError
from botocore.stub import Stubber

from laptop.postgres import free_port
from pg_hotfix_endpoint.app import (
    PASSING,
    SECONDS,
    SHORTEST_SECONDS,
    EndpointRefusedError,
    EndpointUnavailableError,
    call,
    lambda_handler,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "Bearer t0p-secret"
ARN = "arn:aws:secretsmanager:sa-east-1:123456789012:secret:prod/token-Ab12Cd"


@dataclass
class Served:
    """What the endpoint answers, to HEAD `to_head` if that is another status, and what it was asked."""

    url: str = ""
    status: int = 200
    to_head: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as found:
        yield found


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Served]:
    found = Served()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            found.seen.append((self.command, self.path, self.headers["Authorization"]))
            status = found.to_head if self.command == "HEAD" else None
            self.send_response(found.status if status is None else status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):  # Nobody reads it.
                self.wfile.write(found.body if self.command == "GET" else b"")

        do_GET = do_HEAD  # noqa: N815 - the name is http.server's

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that does not trust the certificate hangs up."""

    server = Server(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    found.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}/api/drivers/1"
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(served: Served) -> dict[str, Any]:
    return call(served.url, TOKEN, http.client.HTTPConnection)


def methods(served: Served) -> list[str]:
    assert {(path, token) for _, path, token in served.seen} == {("/api/drivers/1", TOKEN)}
    return [method for method, _, _ in served.seen]


SUCCESSES = [200, 201, 202, 204, 206, 299]
FAILURES = [300, 304, 400, 401, 416, *sorted(PASSING), 505, 599]


@pytest.mark.parametrize("status", SUCCESSES)
def test_any_status_from_200_to_299_is_a_success(served: Served, status: int) -> None:
    served.status = status
    assert ask(served) == {"status": status, "method": "HEAD"}
    assert methods(served) == ["HEAD"]


@pytest.mark.parametrize("status", FAILURES)
def test_any_other_status_is_a_failure_and_some_may_pass(served: Served, status: int) -> None:
    served.status = status
    error = EndpointUnavailableError if status in PASSING else EndpointRefusedError
    with pytest.raises(error) as raised:
        ask(served)
    assert str(raised.value) == f"answered {status} to HEAD instead of 200 to 299"
    assert methods(served) == ["HEAD"]


# A server that has no HEAD

WITHOUT_HEAD = [403, 404, 405, 501]


@pytest.mark.parametrize("to_head", WITHOUT_HEAD)
@pytest.mark.parametrize("status", SUCCESSES)
def test_a_server_without_head_is_judged_by_get(served: Served, to_head: int, status: int) -> None:
    served.to_head, served.status = to_head, status
    assert ask(served) == {"status": status, "method": "GET"}
    assert methods(served) == ["HEAD", "GET"]


@pytest.mark.parametrize("to_head", WITHOUT_HEAD)
@pytest.mark.parametrize("status", [*FAILURES, *WITHOUT_HEAD])
def test_a_failure_of_get_names_get_and_is_final_or_not_as_that_of_head(
    served: Served, to_head: int, status: int
) -> None:
    served.to_head, served.status = to_head, status
    error = EndpointUnavailableError if status in PASSING else EndpointRefusedError
    with pytest.raises(error) as raised:
        ask(served)
    assert str(raised.value) == f"answered {status} to GET instead of 200 to 299"
    assert methods(served) == ["HEAD", "GET"]


def test_a_server_that_is_gone_before_get_may_answer_in_a_moment(served: Served) -> None:
    served.to_head = 405
    ports = iter([None, free_port()])

    def connect(host: str, port: int, timeout: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(host, next(ports) or port, timeout=timeout)

    with pytest.raises(EndpointUnavailableError) as raised:
        call(served.url, TOKEN, connect)
    assert str(raised.value) == "could not be called by GET (ConnectionRefusedError)"


def test_get_has_the_time_that_head_has_left(served: Served) -> None:
    served.to_head = 405
    given: list[float] = []

    def connect(host: str, port: int, timeout: float) -> http.client.HTTPConnection:
        given.append(timeout)
        return http.client.HTTPConnection(host, port, timeout=timeout)

    call(served.url, TOKEN, connect)
    for_head, for_get = given
    assert for_head == SECONDS
    assert SHORTEST_SECONDS <= for_get < SECONDS


def test_a_redirection_is_not_followed_since_the_token_is_for_this_host(served: Served) -> None:
    with serving() as other:
        served.status, served.headers = 302, {"Location": other.url}
        with pytest.raises(EndpointRefusedError, match=r"^answered 302 to HEAD instead of 200 to 299$"):
            ask(served)
        assert other.seen == []


@pytest.mark.parametrize("kind", ["application/octet-stream", "image/png", "video/mp4", "text/html; charset=utf-8"])
def test_whatever_it_answers_only_the_status_is_read(served: Served, kind: str) -> None:
    # Longer than what the state machine could carry, and nothing that is UTF-8.
    served.body = b"\xff" * 3_000_000
    served.headers = {"Content-Type": kind, "Content-Length": str(len(served.body))}
    served.to_head = 405
    assert ask(served) == {"status": 200, "method": "GET"}


def test_a_query_is_sent_and_a_url_without_a_path_is_the_root(served: Served) -> None:
    host = served.url.removesuffix("/api/drivers/1")
    served.url = host
    ask(served)
    served.url = f"{host}/a?b=c"
    ask(served)
    assert [path for _, path, _ in served.seen] == ["/", "/a?b=c"]


def test_who_does_not_answer_may_do_so_in_a_moment() -> None:
    with pytest.raises(EndpointUnavailableError) as raised:
        ask(Served(f"http://127.0.0.1:{free_port()}/"))
    assert str(raised.value) == "could not be called by HEAD (ConnectionRefusedError)"


def test_what_is_no_http_may_be_some_in_a_moment(served: Served) -> None:
    served.headers = {"x": "y\r\n" * 200}
    with pytest.raises(EndpointUnavailableError, match=r"^could not be called by HEAD \(HTTPException\)$"):
        ask(served)


def test_a_certificate_that_does_not_verify_is_refused_and_no_token_sent() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with serving(context) as served:
        with pytest.raises(EndpointRefusedError) as raised:
            call(served.url, TOKEN)
        assert str(raised.value) == ("has no certificate for 127.0.0.1 (unable to get local issuer certificate)")
        assert served.seen == []


@pytest.mark.parametrize("token", ["Bearer a\r\nX-Other: b", "Bearer a\nb", "Bearer \N{SNOWMAN}"])
def test_a_token_that_no_header_holds_is_told_without_it(served: Served, token: str) -> None:
    with pytest.raises(EndpointRefusedError) as raised:
        call(served.url, token, http.client.HTTPConnection)
    assert str(raised.value) == "was not called: the token holds what no header may hold"
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)
    assert served.seen == []


@pytest.mark.parametrize(
    "url", ["https://api..example.com/x", f"https://{'a' * 70}.example.com/", "https://example.com:99999/x"]
)
def test_a_url_without_a_usable_host_and_port_is_told_as_that(url: str) -> None:
    with pytest.raises(
        EndpointRefusedError, match=r"^was not called: the parameter EndpointUrl holds no host and port"
    ):
        call(url, TOKEN)


# The token


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch, served: Served) -> Iterator[Stubber]:
    """The function as it is deployed, but for TLS."""
    client = boto3.client("secretsmanager", region_name="sa-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    monkeypatch.setattr(boto3, "client", lambda service, config: {"secretsmanager": client}[service])
    monkeypatch.setattr(http.client, "HTTPSConnection", http.client.HTTPConnection)
    settings = {"ENDPOINT_URL": served.url, "ENDPOINT_TOKEN_SECRET_ARN": ARN}
    for name, value in settings.items():
        monkeypatch.setitem(os.environ, name, value)
    with contextlib.closing(client), Stubber(client) as stubber:
        yield stubber


def test_the_whole_secret_is_the_header_and_is_read_at_each_call(secrets: Stubber, served: Served) -> None:
    for token in (TOKEN, "Bearer another\n"):
        secrets.add_response("get_secret_value", {"SecretString": token}, {"SecretId": ARN})
        assert lambda_handler({"url": "https://elsewhere.example"}, None) == {"status": 200, "method": "HEAD"}
    assert [token for _, _, token in served.seen] == [TOKEN, "Bearer another"]


@pytest.mark.parametrize("answer", [{"SecretString": " "}, {"SecretBinary": b"x"}])
def test_a_secret_without_text_is_refused(secrets: Stubber, served: Served, answer: dict[str, Any]) -> None:
    secrets.add_response("get_secret_value", answer, {"SecretId": ARN})
    with pytest.raises(EndpointRefusedError, match=r"^was not called: the secret of its token holds no text$"):
        lambda_handler({}, None)
    assert served.seen == []


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "AccessDeniedException", "DecryptionFailure"])
def test_a_secret_that_can_not_be_read_is_named_by_its_error(secrets: Stubber, served: Served, code: str) -> None:
    secrets.add_client_error("get_secret_value", code, "Details that nobody has read.")
    with pytest.raises(EndpointRefusedError) as raised:
        lambda_handler({}, None)
    assert str(raised.value) == f"was not called: {code} for its token"
    assert served.seen == []


@pytest.mark.parametrize(
    ("code", "status"),
    [("ThrottlingException", 400), ("TooManyRequestsException", 429), ("InternalServiceError", 500), ("Anything", 503)],
)
def test_secrets_manager_that_is_busy_may_answer_in_a_moment(
    secrets: Stubber, served: Served, code: str, status: int
) -> None:
    secrets.add_client_error("get_secret_value", code, "Details that nobody has read.", status)
    with pytest.raises(EndpointUnavailableError, match=f"^was not called: {code} for its token$"):
        lambda_handler({}, None)
    assert served.seen == []


def test_secrets_manager_that_does_not_answer_may_do_so_in_a_moment(
    secrets: Stubber, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(**_: object) -> None:
        raise ConnectTimeoutError(endpoint_url="https://secretsmanager.example")

    monkeypatch.setattr(boto3.client("secretsmanager", config=None), "get_secret_value", lose)
    with pytest.raises(EndpointUnavailableError, match=r"^was not called: ConnectTimeoutError for its token$"):
        lambda_handler({}, None)
    assert served.seen == []
