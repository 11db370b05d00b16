"""How big a built function is: what Lambda fetches and unpacks at a cold start."""

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

# boto3 and what comes with it: Lambda's own runtime brings the same.
AWS_SDK = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "python_dateutil", "six", "urllib3")


def package_mb(artifact: Path, *, without: Iterable[str] = ()) -> float:
    """Returns the size of all files, unpacked, without those packages."""
    return sum(path.stat().st_size for path in files_of(artifact, without)) / 1e6


def zipped_mb(artifact: Path) -> float:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files_of(artifact):
            archive.write(path, path.relative_to(artifact))
    return len(buffer.getvalue()) / 1e6


def files_of(artifact: Path, without: Iterable[str] = ()) -> list[Path]:
    left_out = set(without)
    return [
        path
        for path in sorted(artifact.rglob("*"))
        if path.is_file() and left_out.isdisjoint({name_of(path.relative_to(artifact).parts[0])})
    ]


def name_of(entry: str) -> str:
    """The package that a file or folder at the top belongs to: `six.pyc` and `six-1.17.0.dist-info` to six."""
    return entry.partition("-")[0].partition(".")[0]
