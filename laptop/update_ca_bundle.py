"""Keeps the packaged root certificates of RDS the same as the ones that AWS publishes.

    python -m laptop.update_ca_bundle            fetch, check, show the difference, write
    python -m laptop.update_ca_bundle --check    write nothing; exit 1 when something differs or expires soon
    python -m laptop.update_ca_bundle --from FILE_OR_URL

Exit codes: 0 up to date or written, 1 out of date (only with --check), 2 refused: nothing was written.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Never

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

if TYPE_CHECKING:
    from collections.abc import Sequence

# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.SSL.html
ORIGINAL = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
PACKAGED = Path(__file__).resolve().parent.parent / "functions/migrate/pg_hotfix/certificates/rds-ca-bundle.pem"

FETCH_SECONDS = 30
FETCH_LIMIT_BYTES = 5_000_000  # the original has about 150 kB
# RDS has three roots for each of some thirty regions. Fewer than this is part of the bundle, or that of one region.
MINIMUM_CERTIFICATES = 60
EXPIRES_SOON = timedelta(days=90)
SOUND_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
BLOCK = re.compile(f"{BEGIN}.*?{END}", re.DOTALL)


class BundleError(Exception):
    """The bundle cannot be trusted as it is; nothing was written."""


@dataclass(frozen=True)
class Difference:
    """What changes if the new bundle replaces the packaged one."""

    added: tuple[x509.Certificate, ...]
    removed: tuple[x509.Certificate, ...]
    expiring: tuple[x509.Certificate, ...]


def fetch_bundle(source: str) -> str:
    """The text of a file, or of a URL whose server is verified. Redirects are not followed.

    Raises:
        BundleError: the source cannot be read, or is a URL without TLS on another machine.
    """
    url = urllib.parse.urlsplit(source)
    try:
        if url.scheme not in ("http", "https"):
            return Path(source).read_text(encoding="ascii")
        if url.scheme == "http" and url.hostname != "127.0.0.1":
            raise BundleError(f"{source} has no TLS, so nobody vouches for what it serves. Give an https URL.")
        opener = urllib.request.build_opener(RefuseRedirects)
        with opener.open(source, timeout=FETCH_SECONDS) as response:
            content: bytes = response.read(FETCH_LIMIT_BYTES + 1)
        if len(content) > FETCH_LIMIT_BYTES:
            raise BundleError(f"{source} is longer than {FETCH_LIMIT_BYTES} bytes, so it is no bundle of certificates.")
        return content.decode("ascii")
    except UnicodeDecodeError as error:
        raise BundleError(f"{source} holds other bytes than ASCII text, so it is no PEM bundle.") from error
    except urllib.error.HTTPError as error:
        error.close()
        raise BundleError(f"{source} answered {error.code} {error.reason}.") from error
    except OSError as error:
        raise BundleError(f"{source} cannot be read: {error}.") from error


class RefuseRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect could lead to a server without TLS, so it counts as the failure that its status code says."""

    def redirect_request(self, *_args: object, **_kwargs: object) -> None:
        return None


def read_certificates(pem: str) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM bundle in their order; text between them is ignored.

    Raises:
        BundleError: there is none, one is cut off, or one does not parse.
    """
    blocks = BLOCK.findall(pem)
    if not blocks:
        raise BundleError("The bundle holds no certificate.")
    if not len(blocks) == pem.count(BEGIN) == pem.count(END):
        raise BundleError(f"The bundle is cut off: {pem.count(BEGIN)} certificates begin and {pem.count(END)} end.")
    return tuple(read_certificate(number, block) for number, block in enumerate(blocks, start=1))


def read_certificate(number: int, block: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(block.encode())
    except ValueError as error:
        raise BundleError(f"Certificate {number} of the bundle does not parse: {error}.") from error


def check_certificates(
    certificates: Sequence[x509.Certificate], now: datetime, minimum: int = MINIMUM_CERTIFICATES
) -> None:
    """Every certificate is a valid root of RDS today, none is there twice, and there are enough for all regions.

    Raises:
        BundleError: one is not; the text names it and the reason.
    """
    if len(certificates) < minimum:
        raise BundleError(f"The bundle holds {len(certificates)} certificates; the whole one has at least {minimum}.")
    seen = set()
    for certificate in certificates:
        fingerprint = certificate.fingerprint(hashes.SHA256())
        if fingerprint in seen:
            refuse(certificate, "is in the bundle twice")
        seen.add(fingerprint)
        check_certificate(certificate, now)


def check_certificate(certificate: x509.Certificate, now: datetime) -> None:
    if not name_of(certificate).startswith("Amazon RDS ") or "Amazon RDS" not in units_of(certificate):
        refuse(certificate, "is not one of Amazon RDS")
    if not is_authority(certificate):
        refuse(certificate, "is not a certificate authority's")
    if not isinstance(certificate.signature_hash_algorithm, SOUND_HASHES):
        refuse(certificate, "is signed with a hash weaker than SHA-256")
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        refuse(certificate, "is not a root: its own key did not sign it")
    if now < certificate.not_valid_before_utc:
        refuse(certificate, f"is valid only from {certificate.not_valid_before_utc:%Y-%m-%d}")
    if now > certificate.not_valid_after_utc:
        refuse(certificate, f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}")


def refuse(certificate: x509.Certificate, reason: str) -> Never:
    raise BundleError(f"{describe(certificate)} {reason}.")


def is_authority(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca and usage.key_cert_sign


def name_of(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()


def units_of(certificate: x509.Certificate) -> list[str]:
    units = certificate.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATIONAL_UNIT_NAME)
    return [str(unit.value) for unit in units]


def describe(certificate: x509.Certificate) -> str:
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    return f"{name_of(certificate)} (sha256 {fingerprint}, not after {certificate.not_valid_after_utc:%Y-%m-%d})"


def compare(packaged: Sequence[x509.Certificate], new: Sequence[x509.Certificate], now: datetime) -> Difference:
    """What the new bundle adds and removes, and which of its certificates expire within 90 days."""
    return Difference(
        added=tuple(certificate for certificate in new if certificate not in packaged),
        removed=tuple(certificate for certificate in packaged if certificate not in new),
        expiring=tuple(certificate for certificate in new if certificate.not_valid_after_utc - now < EXPIRES_SOON),
    )


def render_bundle(certificates: Sequence[x509.Certificate]) -> str:
    """The bundle as it is packaged: by name, each certificate under the comments that a reviewer compares."""
    return "\n".join(render_certificate(certificate) for certificate in sorted(certificates, key=name_of))


def render_certificate(certificate: x509.Certificate) -> str:
    return (
        f"# {name_of(certificate)}\n"
        f"# not after: {certificate.not_valid_after_utc:%b %e %H:%M:%S %Y} GMT\n"
        f"# sha256: {certificate.fingerprint(hashes.SHA256()).hex(':').upper()}\n"
        f"{certificate.public_bytes(Encoding.PEM).decode()}"
    )


def replace_file(path: Path, text: str) -> None:
    """The file holds the text, or still what it held before: never a part."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="ascii", delete=False) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)  # the function runs as another user than the one who builds it
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise


def print_difference(difference: Difference) -> None:
    for title, certificates in (
        ("added", difference.added),
        ("removed", difference.removed),
        ("expires soon", difference.expiring),
    ):
        for certificate in certificates:
            print(f"{title:<13} {describe(certificate)}")


def update(source: str, packaged: Path, *, write: bool, now: datetime, minimum: int = MINIMUM_CERTIFICATES) -> int:
    """The packaged bundle equals the source if `write`; otherwise only the exit code says whether it does.

    Raises:
        BundleError: the source cannot be read or trusted; the packaged bundle is as it was.
    """
    new = read_certificates(fetch_bundle(source))
    check_certificates(new, now, minimum)
    difference = compare(read_certificates(packaged.read_text(encoding="ascii")), new, now)
    print_difference(difference)
    if not (difference.added or difference.removed):
        print(f"{len(new)} certificates, the same as {source}.")
        return 1 if difference.expiring and not write else 0
    if not write:
        print(f"{packaged.name} differs from {source}. To update it:  make update-ca-bundle")
        return 1
    replace_file(packaged, render_bundle(new))
    print(f"{len(new)} certificates written to {packaged.name}. Review the difference, run the tests, and commit it.")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m laptop.update_ca_bundle")
    parser.add_argument("--from", dest="source", default=ORIGINAL, metavar="FILE_OR_URL", help=f"instead of {ORIGINAL}")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if anything differs or expires soon"
    )
    options = parser.parse_args(arguments)
    try:
        return update(options.source, PACKAGED, write=not options.check, now=datetime.now(UTC))
    except BundleError as error:
        print(f"{error} Nothing was written.", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
