"""Makes the package of the function in the VPC, for `sam build`: what it imports, compiled, and nothing else.

Lambda's /var/task can't be written: a package without bytecode is compiled at every cold start, and botocore reads all
its data about all of AWS. Standard library only, and the Python of the function: bytecode is of one version.
"""

import compileall
import json
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
FUNCTION = PROJECT / "functions" / "migrate"
PACKAGE = "pg_hotfix"
REQUIREMENTS = PROJECT / "requirements" / "function.txt"
PYTHON = (3, 13)
# Where Lambda puts the package, and so the path in tracebacks.
TASK_ROOT = "/var/task"
SERVICE = "secretsmanager"
# What the function's libraries bring along and it never imports: clients of other services, other features, sources of
# documentation, and lists of files that are no longer there.
UNUSED = (
    "bin",
    "boto3/data",
    "boto3/examples",
    "dateutil/zoneinfo",
    "aws_lambda_powertools/event_handler",
    "aws_lambda_powertools/utilities/*/",
    "botocore/data/*/",
    "*.dist-info/RECORD",
    "*.data",
)
USED = (
    "aws_lambda_powertools/utilities/jmespath_utils",
    "aws_lambda_powertools/utilities/parameters",
    f"botocore/data/{SERVICE}",
)


def main(target: Path) -> None:
    if sys.version_info[:2] != PYTHON:
        sys.exit(f"The package needs Python {'.'.join(map(str, PYTHON))}, not {sys.version.split()[0]}.")
    install(target)
    prune(target)
    keep_one_service(target / "botocore" / "data" / "endpoints.json")
    keep_no_readme(target)
    compile_libraries(target)
    copy_function(target)


def install(target: Path) -> None:
    """The libraries are there, as pinned. One that is made for a processor is refused: the function's is another."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    exactly = ["--require-hashes", "--no-deps", "--only-binary=:all:", "--platform=any", "--no-compile"]
    subprocess.run([*pip, *exactly, "--target", target, "--requirement", REQUIREMENTS], check=True)  # noqa: S603 - nothing of it is from outside


def prune(target: Path) -> None:
    used = {target / name for name in USED}
    for pattern in UNUSED:
        for path in sorted(target.glob(pattern)):
            if path.is_file():
                path.unlink()
            elif path not in used:
                shutil.rmtree(path)


def keep_one_service(endpoints: Path) -> None:
    """Where the service is, in every partition and region; botocore reads all of this file for a client."""
    document = json.loads(endpoints.read_text())
    for partition in document["partitions"]:
        partition["services"] = {name: found for name, found in partition["services"].items() if name == SERVICE}
    endpoints.write_text(json.dumps(document))


def keep_no_readme(target: Path) -> None:
    """Each library's metadata are its name, version and licence, without the description that follows.
    https://packaging.python.org/en/latest/specifications/core-metadata/"""
    for metadata in target.glob("*.dist-info/METADATA"):
        headers, _, _ = metadata.read_text().partition("\n\n")
        metadata.write_text(f"{headers}\n")


def compile_libraries(target: Path) -> None:
    """Each library is bytecode alone."""
    if not compileall.compile_dir(target, quiet=1, legacy=True, stripdir=target, prependdir=TASK_ROOT):
        sys.exit("A library can't be compiled.")
    for source in target.rglob("*.py"):
        source.unlink()


def copy_function(target: Path) -> None:
    """The function's own files come with their source, for tracebacks, and with bytecode that is taken as it is: the
    times of files change on the way to Lambda.

    https://docs.python.org/3/library/py_compile.html#py_compile.PycInvalidationMode
    """
    shutil.copy(FUNCTION / "app.py", target)
    shutil.copytree(FUNCTION / PACKAGE, target / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    for copied in (target / "app.py", *sorted((target / PACKAGE).rglob("*.py"))):
        py_compile.compile(
            str(copied),
            dfile=f"{TASK_ROOT}/{copied.relative_to(target)}",
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
