"""AWS on 127.0.0.1, in this process: Secrets Manager and whatever else moto offers."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import boto3
import moto
import requests
from moto.server import ThreadedMotoServer

# moto's Step Functions take one name from a module of moto.batch. The package itself would read all of EC2, which takes
# longer than everything else here; so it stands there empty.
BATCH = sys.modules.setdefault("moto.batch", ModuleType("moto.batch"))
BATCH.__path__ = [f"{path}/batch" for path in moto.__path__]

REGION = "us-east-1"
# moto accepts any credentials; given here, so that nothing looks for real ones.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
}


@dataclass(frozen=True)
class FakeAws:
    endpoint_url: str

    def client(self, service: str) -> Any:
        """The service's ordinary client; whoever asks for it closes it."""
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.endpoint_url,
            region_name=REGION,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )

    def put_secret(self, name: str, value: str) -> str:
        """The secret has that value, whether it existed or not; returns its ARN."""
        with contextlib.closing(self.client("secretsmanager")) as client:
            try:
                arn: str = client.create_secret(Name=name, SecretString=value)["ARN"]
            except client.exceptions.ResourceExistsException:
                arn = client.put_secret_value(SecretId=name, SecretString=value)["ARN"]
            return arn


@contextlib.contextmanager
def fake_aws() -> Iterator[FakeAws]:
    """Within the block an empty AWS account answers at `endpoint_url`."""
    # One line for each request is of no use to anybody.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        aws = FakeAws(endpoint_url=f"http://{host}:{port}")
        # moto keeps its state in this process, beyond the life of one server.
        requests.post(f"{aws.endpoint_url}/moto-api/reset", timeout=10).raise_for_status()
        yield aws
    finally:
        server.stop()
        # moto leaves the socket open.
        if server._server:
            server._server.server_close()
