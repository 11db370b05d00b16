"""Packages a function for Lambda: `python3.13 local/package.py functions/migrate <folder>`, which `sam build` runs.

Standard library only, of the Python that the function runs on: its bytecode is part of the package. /var/task can't be
written to, so that without it everything would be compiled at every cold start.
"""

import compileall
import json
import shutil
import subprocess
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

RUNTIME = (3, 13)
TASK_ROOT = "/var/task"
UNCHECKED = PycInvalidationMode.UNCHECKED_HASH
# The AWS services that the function calls, by botocore's names for them.
SERVICES = {"secretsmanager"}
# Of Powertools, what `Logger`, `Metrics` and `SecretsProvider` do not import.
UNUSED = (
    *("aws_lambda_powertools/event_handler", "aws_lambda_powertools/metrics/provider/datadog"),
    *(
        f"aws_lambda_powertools/utilities/{name}"
        for name in (
            *("auth_alpha", "batch", "circuit_breaker", "data_classes", "data_masking", "feature_flags", "idempotency"),
            *("kafka", "metadata", "parser", "streaming", "validation"),
        )
    ),
    *(f"asn1crypto/{name}.py" for name in ("cms", "crl", "csr", "ocsp", "pdf", "pkcs12", "tsp")),
)


def main(source: Path, target: Path) -> None:
    if sys.version_info[:2] != RUNTIME:
        sys.exit(f"The package needs the bytecode of Python {'.'.join(map(str, RUNTIME))}: run it with that.")
    install(source / "requirements.txt", target)
    remove_unused(target)
    compile_libraries(target)
    for path in source.glob("*.py"):
        shutil.copy(path, target)
    shutil.copytree(source / "certificates", target / "certificates", dirs_exist_ok=True)
    compile_files(target, legacy=False)


def install(requirements: Path, target: Path) -> None:
    """The pinned packages are there. One that is not the same for every processor is refused: the function's is not
    this machine's."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
            *("--require-hashes", "--only-binary=:all:", "--platform=any", "--no-deps"),
            *("--target", target, "--requirement", requirements),
        ],
        check=True,
    )


def remove_unused(target: Path) -> None:
    for name in UNUSED:
        path = target / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    data = target / "botocore" / "data"
    for path in data.iterdir():
        if path.is_dir() and path.name not in SERVICES:
            shutil.rmtree(path)
    endpoints = json.loads((data / "endpoints.json").read_text())
    for partition in endpoints["partitions"]:
        partition["services"] = {name: at for name, at in partition["services"].items() if name in SERVICES}
    (data / "endpoints.json").write_text(json.dumps(endpoints))
    shutil.rmtree(target / "bin", ignore_errors=True)


def compile_libraries(target: Path) -> None:
    """Of the libraries only the bytecode is left; a traceback still names file and line."""
    compile_files(target, legacy=True)
    for path in target.rglob("*.py"):
        path.unlink()


def compile_files(target: Path, *, legacy: bool) -> None:
    """https://docs.python.org/3/library/compileall.html"""
    if not compileall.compile_dir(
        target, quiet=1, legacy=legacy, invalidation_mode=UNCHECKED, stripdir=target, prependdir=TASK_ROOT
    ):
        sys.exit("Not all could be compiled.")


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:]))
