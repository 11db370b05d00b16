"""Forks a process for each run of the function, which a test may end or stop at any moment, as Lambda may.

`python -m tests.integration.sandbox` has everything imported and one thread, so that a fork is quick and safe. It takes
orders from the socket that is its standard input; each comes with a channel for the run itself.
"""

from __future__ import annotations

import json
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import boto3
from moto import mock_aws

from pg_hotfix.server.credentials import read_target
from tests.conftest import PATIENCE_SECONDS
from tests.integration.aftermath import Ending, run_to_its_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pg_hotfix.settings import Settings

ORDER_BYTES = 65_536


@dataclass(frozen=True)
class Run:
    """One process, at work from `start` on."""

    channel: socket.socket
    pidfd: int

    def start(self) -> None:
        self.channel.sendall(b"go")

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # It has ended by itself.
            signal.pidfd_send_signal(self.pidfd, number)

    def has_ended(self) -> bool:
        """Whether it has reported something, or is gone."""
        return bool(select.select([self.channel], [], [], 0)[0])

    def ending(self) -> Ending:
        """What it reported at its end, or an empty ending when it was killed before."""
        try:
            report = self.channel.recv(ORDER_BYTES)
        except ConnectionResetError:  # It was killed before it had read the word to start.
            report = b""
        ending: Ending = pickle.loads(report) if report else Ending()
        return ending


@dataclass(frozen=True)
class Sandbox:
    orders: socket.socket

    @contextmanager
    def run(self, settings: Settings, secret: dict[str, Any]) -> Iterator[Run]:
        """A process that waits for its start. None is left of it after the block."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                socket.send_fds(self.orders, [pickle.dumps((settings, json.dumps(secret)))], [theirs.fileno()])
            ours.settimeout(PATIENCE_SECONDS)
            pidfd = os.pidfd_open(int(ours.recv(ORDER_BYTES)))
            run = Run(ours, pidfd)
            try:
                yield run
            finally:
                run.send(signal.SIGKILL)
                os.close(pidfd)


@contextmanager
def running_sandbox() -> Iterator[Sandbox]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = os.environ | {"PYTHONPATH": path, "AWS_DEFAULT_REGION": "sa-east-1"}
    with ours:
        with theirs:
            process = subprocess.Popen([sys.executable, "-m", __name__], stdin=theirs.fileno(), env=environment)
        with process:
            yield Sandbox(ours)
            ours.close()


def take_orders(orders: socket.socket) -> None:
    client = boto3.client("secretsmanager")
    arns: dict[str, str] = {}
    while True:
        message, channels, *_ = socket.recv_fds(orders, ORDER_BYTES, 1)
        if not message:
            return
        settings, secret = pickle.loads(message)
        if secret not in arns:
            arns[secret] = client.create_secret(Name=f"secret-{len(arns)}", SecretString=secret)["ARN"]
        settings = replace(settings, secret_arn=arns[secret])
        read_target(settings)  # It is remembered from here on.
        with socket.socket(fileno=channels[0]) as channel:
            if os.fork() == 0:
                run_once(channel, settings)


def run_once(channel: socket.socket, settings: Settings) -> None:
    """In the child."""
    try:
        channel.sendall(str(os.getpid()).encode())
        channel.recv(ORDER_BYTES)
        channel.sendall(pickle.dumps(run_to_its_end(settings)))
    finally:
        os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody waits for the children.
    with mock_aws(), socket.socket(fileno=0) as standard_input:
        take_orders(standard_input)
