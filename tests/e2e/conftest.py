"""One running stack for all of a worker's tests of a file, since each of its parts takes a second to start. moto keeps
what it knows in the process, where the next file's tests begin with an empty account."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from laptop.aws import FakeAws, fake_aws
from laptop.build import build_if_changed
from laptop.emulator import EmulatedFunction, emulated_function
from laptop.environment import local_environment
from tests.conftest import Database, create_database, drop_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from laptop.postgres import Server


@dataclass(frozen=True)
class House:
    """What all tests share. `function` gives up a busy table after a second; `fragile`, which waits as long as a
    deployed one, is killed and stopped by tests."""

    aws: FakeAws
    database: Database
    function: EmulatedFunction
    fragile: EmulatedFunction


@pytest.fixture(scope="module")
def house(server: Server) -> Iterator[House]:
    build_if_changed()
    database = create_database(server)
    with fake_aws() as aws:
        secret_arn = aws.put_secret("kaviar/database", json.dumps(database.secret()))
        environment = local_environment(server.ca_bundle, secret_arn, aws.endpoint_url)
        with (
            emulated_function(environment | {"LOCK_WAIT_SECONDS": "1"}) as function,
            emulated_function(environment) as fragile,
        ):
            yield House(aws, database, function, fragile)
    drop_database(database)


@pytest.fixture
def incident(house: House) -> Database:
    """The house's database, as the incident began."""
    house.database.run_as_owner("ALTER TABLE drivers DROP COLUMN IF EXISTS active_since")
    return house.database
