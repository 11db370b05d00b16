"""The function as `sam build` built it, under the real Lambda runtime interface emulator and client, without Docker."""

import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import yaml

from laptop.aws import CREDENTIALS
from laptop.errors import LocalError
from laptop.places import ARTIFACT
from laptop.postgres import free_port

FUNCTION = "MigrateFunction"
START_SECONDS = 60.0
STOP_SECONDS = 5.0
# What Lambda adds to /var/task: the runtime interface client and what it needs, and nothing else of .venv.
RUNTIME_PACKAGES = ("awslambdaric", "simplejson", "snapshot-restore-py")
# Its value is an endpoint inside the VPC; on a laptop AWS_ENDPOINT_URL stands for all of AWS.
DEPLOYED_ONLY = {"AWS_ENDPOINT_URL_SECRETS_MANAGER"}


@dataclass(frozen=True)
class FunctionSettings:
    handler: str
    timeout_seconds: int
    memory_mb: int
    log_format: str
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Invocation:
    """What the caller and the log group see of one invocation; `output` is all that was written, as text."""

    payload: Any
    error_type: str | None
    error_message: str | None
    logs: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    output: str
    seconds: float


@dataclass(frozen=True)
class EmulatedFunction:
    url: str
    settings: FunctionSettings
    log: Path
    session: int
    # The emulator dies of two requests at once.
    turn: threading.Lock = field(default_factory=threading.Lock)

    def invoke(self, event: Any) -> Invocation:
        """The function was invoked once with the event; its failure is in the answer, not an exception here."""
        with self.turn:
            written_before = self.log.stat().st_size
            started = time.monotonic()
            response = requests.post(self.url, json=event, timeout=self.settings.timeout_seconds + START_SECONDS)
            seconds = time.monotonic() - started
            output = self._output_since(written_before)
        return read_invocation(response.text, output, seconds)

    def _output_since(self, position: int) -> str:
        deadline = time.monotonic() + 1
        while True:
            with self.log.open("rb") as file:
                file.seek(position)
                output = file.read().decode(errors="replace")
            # The emulator answers before it has passed on everything that the function wrote; this line is its last.
            if "REPORT RequestId" in output or time.monotonic() > deadline:
                return output
            time.sleep(0.01)


@contextlib.contextmanager
def emulated_function(
    environment: Mapping[str, str], artifact: Path = ARTIFACT, prefix: Sequence[str] = ()
) -> Iterator[EmulatedFunction]:
    """Within the block the built function can be invoked; after it none of its processes runs.

    Time-out, memory and environment are those of the built template; `environment` stands in for what only a stack has.
    The first invocation starts the function's own process, by the command `prefix` if there is one.
    """
    # In C: in Python it takes longer than the start of the function.
    template = yaml.load((artifact.parent / "template.yaml").read_text(), yaml.CSafeLoader)
    settings = read_settings(template, environment, artifact.name)
    with tempfile.TemporaryDirectory(prefix="pg-hotfix-emulator-") as directory:
        runtime = link_runtime(Path(directory) / "runtime")
        log = Path(directory) / "log"
        port, api_port = free_port(), free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    emulator_binary(),
                    *("--runtime-interface-emulator-address", f"127.0.0.1:{port}"),
                    *("--runtime-api-address", f"127.0.0.1:{api_port}"),
                    # Without the site-packages of .venv a package missing from the artifact is missed here too.
                    *(*prefix, sys.executable, "-S", "-m", "awslambdaric", settings.handler),
                ],
                cwd=artifact,
                env=lambda_environment(settings, artifact, runtime),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            wait_until_listening(process, port, log)
            url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
            yield EmulatedFunction(url, settings, log, process.pid)
        finally:
            end_session(process)


def read_settings(
    template: dict[str, Any], environment: Mapping[str, str], function: str = FUNCTION
) -> FunctionSettings:
    """Returns the settings of the function in the template, each parameter at its default.

    Raises: LocalError when a variable has a value that only a stack can compute and `environment` gives none for it.
    """
    parameters = template.get("Parameters", {})
    properties = template.get("Globals", {}).get("Function", {}) | template["Resources"][function]["Properties"]

    def resolve(name: str, value: Any) -> str:
        if isinstance(value, dict):
            reference = value.get("Ref")
            if "Default" not in parameters.get(reference, {}):
                raise LocalError(
                    f"template.yaml computes {name} of {function} in a stack only: give it a value in "
                    "laptop/environment.py."
                )
            value = parameters[reference]["Default"]
        return str(value)

    variables = properties["Environment"]["Variables"]
    return FunctionSettings(
        handler=properties["Handler"],
        timeout_seconds=int(resolve("Timeout", properties["Timeout"])),
        memory_mb=int(resolve("MemorySize", properties["MemorySize"])),
        log_format=properties.get("LoggingConfig", {}).get("LogFormat", "Text"),
        environment={
            name: resolve(name, value)
            for name, value in variables.items()
            if name not in environment and name not in DEPLOYED_ONLY
        }
        | dict(environment),
    )


def lambda_environment(settings: FunctionSettings, artifact: Path, runtime: Path) -> dict[str, str]:
    """Returns what Lambda sets for a function, and nothing of this machine's environment.

    https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    """
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        "PYTHONPATH": f"{artifact}{os.pathsep}{runtime}",
        # /var/task is read-only: what the package lacks is compiled at each cold start.
        "PYTHONDONTWRITEBYTECODE": "1",
        "LAMBDA_TASK_ROOT": str(artifact),
        "_HANDLER": settings.handler,
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_LAMBDA_FUNCTION_NAME": artifact.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(settings.timeout_seconds),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(settings.memory_mb),
        "AWS_LAMBDA_LOG_FORMAT": settings.log_format,
        **CREDENTIALS,
        **settings.environment,
    }


def read_invocation(body: str, output: str, seconds: float) -> Invocation:
    """Returns the invocation that the emulator answered with that body while the function wrote that output."""
    lines = [record for line in output.splitlines() if isinstance(record := parse_json(line), dict)]
    payload = parse_json(body)
    error_type = error_message = None
    if isinstance(payload, dict) and {"errorType", "errorMessage"} <= payload.keys():
        error_type, error_message = payload["errorType"], payload["errorMessage"]
    elif payload is None and body.strip() != "null":
        # Of a time-out and of a crash the emulator tells in plain text.
        error_type, error_message = "Sandbox.Timedout" if "timed out" in body else "Runtime.ExitError", body.strip()
    return Invocation(
        payload=payload,
        error_type=error_type,
        error_message=error_message,
        logs=[record for record in lines if "_aws" not in record],
        metrics=[record for record in lines if "_aws" in record],
        output=output,
        seconds=seconds,
    )


def parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def emulator_binary() -> Path:
    """Returns the emulator inside the aws-sam-cli package."""
    architecture = "arm64" if platform.machine() == "aarch64" else "x86_64"
    sam = importlib.metadata.distribution("aws-sam-cli")
    return Path(str(sam.locate_file(f"samcli/local/rapid/aws-lambda-rie-{architecture}")))


def link_runtime(directory: Path) -> Path:
    directory.mkdir()
    for package in RUNTIME_PACKAGES:
        distribution = importlib.metadata.distribution(package)
        names = {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}
        for name in names:
            (directory / name).symlink_to(Path(str(distribution.locate_file(name))))
    return directory


def wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise LocalError(f"The Lambda emulator did not start:\n{log.read_text(errors='replace')}")


def end_session(process: subprocess.Popen[bytes]) -> None:
    """No process of the session that was started with `process` runs any more."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_SECONDS
        while members := session_members(process.pid):
            if time.monotonic() > deadline:
                break
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            process.poll()
            time.sleep(0.02)
    process.wait()


def session_members(session: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                # state, ppid, pgrp, session follow the name, which may hold anything and ends with the last bracket.
                state, _, _, owner = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(owner) == session and state != "Z":
                    members.append(int(entry.name))
    return members
