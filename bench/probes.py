"""Readers and writers of single rows, whose every wait is recorded.

pgbench, not Python: its clock and its event loop do not suffer from what else this process does.
https://www.postgresql.org/docs/current/pgbench.html
"""

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.stage import Stage
from laptop.binaries import binary_directory
from laptop.errors import LocalError
from laptop.psql import psql_environment

READ = "\\set n random(1, {rows})\nSELECT name FROM public.drivers WHERE id = lpad(:n::text, 32, '0')::uuid;\n"
# Each client has a row of its own, so that nobody waits for anything but the table.
WRITE = (
    "UPDATE public.drivers SET name = 'Driver' || :client_id"
    " WHERE id = lpad(({first} + :client_id)::text, 32, '0')::uuid;\n"
)
READERS, WRITERS = 4, 2
READS_PER_SECOND, WRITES_PER_SECOND = 1000, 500
FIRST_WRITTEN_ROW = 100
# What was due longer ago than this, because everybody waited, is not sent any more.
GIVE_UP_MS = 20
START_SECONDS = 10.0
FLUSH_SECONDS = 10.0


@dataclass(frozen=True)
class Sample:
    """One request: when it was sent, in seconds since the epoch, and how long its answer took."""

    at: float
    ms: float

    @property
    def ended(self) -> float:
        return self.at + self.ms / 1000


@dataclass
class Probe:
    """A running pgbench and what it has logged."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    interval_ms: float
    position: int = 0
    samples: list[Sample] = field(default_factory=list)

    def between(self, start: float, until: float) -> list[Sample]:
        """Returns the requests that were under way at some moment between; earlier ones are forgotten."""
        deadline = time.monotonic() + FLUSH_SECONDS
        # pgbench writes its log in blocks: once it holds something later, it holds everything until then.
        while not (self._read() and self.samples[-1].ended > until):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise LocalError(f"The {self.name} of the bench have stopped; {self.log} holds what they did.")
            time.sleep(0.02)
        self.samples = [sample for sample in self.samples if sample.ended >= start]
        return [sample for sample in self.samples if sample.at <= until]

    def _read(self) -> bool:
        with self.log.open("rb") as file:
            file.seek(self.position)
            whole, newline, _ = file.read().rpartition(b"\n")
        self.position += len(whole) + len(newline)
        self.samples += parse_log(whole.decode())
        return bool(self.samples)


@dataclass(frozen=True)
class Probes:
    readers: Probe
    writers: Probe


def parse_log(text: str) -> list[Sample]:
    """Returns the requests that were sent, in the order of their ends.

    A line is `client number time_us script epoch_s epoch_us lag_us`: the end of the request, and its time since it was
    due, of which the lag passed before it was sent.
    """
    samples = []
    for line in text.splitlines():
        _, _, taken, _, seconds, micros, lag = line.split()
        if taken != "skipped":
            waited = int(taken) - int(lag)
            samples.append(Sample(int(seconds) + (int(micros) - waited) / 1e6, waited / 1000))
    return samples


@contextlib.contextmanager
def running_probes(stage: Stage) -> Iterator[Probes]:
    """Within the block readers and writers are at work, each on a connection of its own."""
    read, write = READ.format(rows=stage.rows), WRITE.format(first=FIRST_WRITTEN_ROW)
    with (
        _probe(stage, "readers", read, READERS, READS_PER_SECOND) as readers,
        _probe(stage, "writers", write, WRITERS, WRITES_PER_SECOND) as writers,
    ):
        yield Probes(readers, writers)


@contextlib.contextmanager
def _probe(stage: Stage, name: str, script: str, clients: int, per_second: int) -> Iterator[Probe]:
    prefix = stage.directory / f"{name}-log"
    options = [f"--rate={per_second}", f"--latency-limit={GIVE_UP_MS}", "--log", f"--log-prefix={prefix}"]
    with running_pgbench(stage, name, script, clients, options) as process:
        yield Probe(name, process, Path(f"{prefix}.{process.pid}"), 1000 * clients / per_second)


@contextlib.contextmanager
def running_pgbench(
    stage: Stage, name: str, script: str, clients: int, options: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Within the block that many clients run the script over and over; they are logged in when it begins."""
    file = stage.directory / f"{name}.sql"
    file.write_text(script)
    command: list[str | Path] = [
        binary_directory() / "pgbench",
        # Not prepared: pgbench prepares one client after the other, so one that waits for the table would stop all,
        # and with them those whose COMMIT it waits for.
        *("--no-vacuum", "--protocol=simple", "--time=86400", "--jobs=1"),
        *(f"--file={file}", f"--client={clients}", *options),
    ]
    with (stage.directory / f"{name}.out").open("wb") as output:
        process = subprocess.Popen(
            command,
            env=psql_environment(stage.server, stage.login) | {"PGAPPNAME": name},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while stage.count_sessions(name) < clients:
            if process.poll() is not None or time.monotonic() > deadline:
                raise LocalError(f"pgbench did not start: {(stage.directory / f'{name}.out').read_text().strip()}")
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait()
