"""The packaged roots are sound, and only a sound bundle replaces them."""

from __future__ import annotations

import http.server
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from laptop import update_ca_bundle
from laptop.update_ca_bundle import BundleError, check_certificates, fetch_bundle, read_certificates, update

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 2, 12, 9, 20, tzinfo=UTC)
AMAZON_ROOTS = update_ca_bundle.PACKAGED.with_name("amazon-roots.pem")
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Root:
    """What a test changes about a root certificate that is sound otherwise."""

    name: str = "Amazon RDS test-1 Root CA ECC256 G1"
    unit: str = "Amazon RDS"
    begins: datetime = NOW - timedelta(days=365)
    ends: datetime = NOW + timedelta(days=3650)
    authority: bool = True
    may_sign: bool = True
    signed_by: ec.EllipticCurvePrivateKey = KEY


def make_certificate(root: Root) -> x509.Certificate:
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, root.name),
            x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, root.unit),
        ]
    )
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=root.may_sign,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(root.begins)
        .not_valid_after(root.ends)
        .add_extension(x509.BasicConstraints(ca=root.authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(root.signed_by, hashes.SHA256())
    )


def make_pem(*roots: Root) -> str:
    return "".join(make_certificate(root).public_bytes(Encoding.PEM).decode() for root in roots)


def refusal(pem: str, minimum: int = 1) -> str:
    with pytest.raises(BundleError) as caught:
        check_certificates(read_certificates(pem), NOW, minimum)
    return str(caught.value)


def common_name(certificate: dict[str, Any]) -> str:
    return str(next(value for ((key, value),) in certificate["subject"] if key == "commonName"))


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    path = tmp_path / "rds-ca-bundle.pem"
    path.write_text(make_pem(Root(), Root(name="Amazon RDS test-2 Root CA ECC256 G1")))
    return path


# The packaged certificates


def test_packaged_bundle_holds_87_roots_of_rds_that_are_valid_today() -> None:
    certificates = read_certificates(update_ca_bundle.PACKAGED.read_text())
    assert len(certificates) == 87
    check_certificates(certificates, datetime.now(UTC))


def test_packaged_bundle_is_written_as_the_command_would_write_it() -> None:
    text = update_ca_bundle.PACKAGED.read_text()
    assert update_ca_bundle.render_bundle(read_certificates(text)) == text


def test_packaged_public_roots_are_the_five_that_rds_proxy_chains_to_and_valid_today() -> None:
    # Read with ssl: cryptography warns about the serial number 0 of the Starfield root.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(AMAZON_ROOTS)
    ends = {common_name(certificate): certificate["notAfter"] for certificate in context.get_ca_certs()}
    assert set(ends) == {
        "Amazon Root CA 1",
        "Amazon Root CA 2",
        "Amazon Root CA 3",
        "Amazon Root CA 4",
        "Starfield Services Root Certificate Authority - G2",
    }
    assert all(ssl.cert_time_to_seconds(str(end)) > time.time() for end in ends.values())


@pytest.mark.parametrize("path", [update_ca_bundle.PACKAGED, AMAZON_ROOTS], ids=lambda path: path.name)
def test_each_packaged_certificate_stands_under_its_name_and_fingerprint(path: Path) -> None:
    for block in path.read_text().rstrip("\n").split("\n\n"):
        name, _, fingerprint, pem = block.split("\n", 3)
        der = ssl.PEM_cert_to_DER_cert(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=der)
        (certificate,) = context.get_ca_certs()
        assert name == f"# {common_name(certificate)}"
        digest = hashes.Hash(hashes.SHA256())
        digest.update(der)
        assert fingerprint == f"# sha256: {digest.finalize().hex(':').upper()}"


def test_strict_tls_context_loads_all_packaged_certificates() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(update_ca_bundle.PACKAGED)
    context.load_verify_locations(AMAZON_ROOTS)
    assert context.cert_store_stats() == {"x509": 92, "crl": 0, "x509_ca": 92}


# What a bundle is refused for


def test_empty_bundle_is_refused() -> None:
    assert refusal("") == "The bundle holds no certificate."


def test_page_that_is_no_bundle_is_refused() -> None:
    assert refusal("<html>Sign in to the guest network</html>") == "The bundle holds no certificate."


def test_bundle_that_is_cut_off_is_refused() -> None:
    pem = make_pem(Root(), Root(name="Amazon RDS test-2 Root CA ECC256 G1"))
    assert refusal(pem[:-200]) == "The bundle is cut off: 2 certificates begin and 1 end."


def test_bundle_of_one_region_is_refused() -> None:
    assert refusal(make_pem(Root()), minimum=60) == "The bundle holds 1 certificates; the whole one has at least 60."


def test_certificate_that_does_not_parse_is_refused() -> None:
    pem = f"{update_ca_bundle.BEGIN}\nbm90IGEgY2VydGlmaWNhdGU=\n{update_ca_bundle.END}\n"
    assert refusal(pem).startswith("Certificate 1 of the bundle does not parse: ")


def test_same_certificate_twice_is_refused() -> None:
    assert refusal(make_pem(Root()) * 2).endswith(" is in the bundle twice.")


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        (Root(name="Amazon Root CA 1"), "is not one of Amazon RDS."),
        (Root(unit="Amazon"), "is not one of Amazon RDS."),
        (Root(authority=False), "is not a certificate authority's."),
        (Root(may_sign=False), "is not a certificate authority's."),
        (Root(signed_by=OTHER_KEY), "is not a root: its own key did not sign it."),
        (Root(begins=NOW + timedelta(days=1)), "is valid only from 2026-02-13."),
        (Root(ends=NOW - timedelta(days=1)), "expired on 2026-02-11."),
    ],
    ids=[
        "of another authority",
        "of another unit",
        "of a server",
        "that may not sign",
        "signed by another key",
        "of tomorrow",
        "of yesterday",
    ],
)
def test_unsound_certificate_is_refused_by_name(root: Root, reason: str) -> None:
    text = refusal(make_pem(Root(name="Amazon RDS test-2 Root CA ECC256 G1"), root))
    assert text.startswith(f"{root.name} (sha256 ")
    assert text.endswith(f"not after {root.ends:%Y-%m-%d}) {reason}")


def test_weak_signature_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # No library signs with SHA-1 any more, so the bar is raised instead.
    monkeypatch.setattr(update_ca_bundle, "SOUND_HASHES", (hashes.SHA512,))
    assert refusal(make_pem(Root())).endswith(" is signed with a hash weaker than SHA-256.")


# What the command does


def test_same_bundle_changes_nothing(packaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = packaged.stat().st_mtime_ns
    assert update(str(packaged), packaged, write=True, now=NOW, minimum=1) == 0
    assert packaged.stat().st_mtime_ns == before
    assert capsys.readouterr().out == f"2 certificates, the same as {packaged}.\n"


def test_new_bundle_is_written_and_its_difference_shown(
    packaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, removed = read_certificates(packaged.read_text())
    added = make_certificate(Root(name="Amazon RDS test-3 Root CA ECC256 G1"))
    source = tmp_path / "new.pem"
    source.write_text("".join(one.public_bytes(Encoding.PEM).decode() for one in (added, kept)))
    assert update(str(source), packaged, write=True, now=NOW, minimum=1) == 0
    assert capsys.readouterr().out == (
        f"added         {update_ca_bundle.describe(added)}\n"
        f"removed       {update_ca_bundle.describe(removed)}\n"
        "2 certificates written to rds-ca-bundle.pem. Review the difference, run the tests, and commit it.\n"
    )
    assert read_certificates(packaged.read_text()) == (kept, added)
    assert packaged.stat().st_mode & 0o777 == 0o644
    assert {path.name for path in tmp_path.iterdir()} == {"rds-ca-bundle.pem", "new.pem"}


def test_check_of_another_bundle_writes_nothing_and_exits_1(
    packaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = packaged.read_bytes()
    source = tmp_path / "new.pem"
    source.write_text(make_pem(Root(name="Amazon RDS test-3 Root CA ECC256 G1")))
    assert update(str(source), packaged, write=False, now=NOW, minimum=1) == 1
    assert packaged.read_bytes() == before
    out = capsys.readouterr().out
    assert out.endswith(f"rds-ca-bundle.pem differs from {source}. To update it:  make update-ca-bundle\n")


@pytest.mark.parametrize(("days", "code"), [(89, 1), (91, 0)])
def test_check_exits_1_when_a_certificate_expires_within_90_days(
    packaged: Path, days: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    packaged.write_text(make_pem(Root(ends=NOW + timedelta(days=days))))
    assert update(str(packaged), packaged, write=False, now=NOW, minimum=1) == code
    assert ("expires soon  Amazon RDS test-1" in capsys.readouterr().out) == bool(code)


def test_unsound_bundle_leaves_the_packaged_one_as_it_was(packaged: Path, tmp_path: Path) -> None:
    before = packaged.read_bytes()
    source = tmp_path / "new.pem"
    source.write_text(make_pem(Root(), Root(signed_by=OTHER_KEY)))
    with pytest.raises(BundleError):
        update(str(source), packaged, write=True, now=NOW, minimum=1)
    assert packaged.read_bytes() == before


def test_failed_write_leaves_the_packaged_bundle_and_no_rest(packaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = packaged.read_bytes()

    def fail(_descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("laptop.update_ca_bundle.os.fsync", fail)
    with pytest.raises(OSError, match="No space left on device"):
        update_ca_bundle.replace_file(packaged, "half")
    assert packaged.read_bytes() == before
    assert list(packaged.parent.iterdir()) == [packaged]


def test_command_compares_with_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert update_ca_bundle.main(["--check", "--from", str(update_ca_bundle.PACKAGED)]) == 0
    assert capsys.readouterr().out == f"87 certificates, the same as {update_ca_bundle.PACKAGED}.\n"


def test_command_exits_2_and_says_why_when_it_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "empty.pem"
    source.write_text("")
    assert update_ca_bundle.main(["--from", str(source)]) == 2
    assert capsys.readouterr().err == "The bundle holds no certificate. Nothing was written.\n"


# Where a bundle may come from


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/bundle")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"text of the bundle" if self.path == "/bundle" else b"x" * 200)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_bundle_is_fetched_from_a_url(address: str) -> None:
    assert fetch_bundle(f"{address}/bundle") == "text of the bundle"


def test_redirect_is_not_followed(address: str) -> None:
    with pytest.raises(BundleError) as caught:
        fetch_bundle(f"{address}/moved")
    assert str(caught.value) == f"{address}/moved answered 302 Found."


def test_endless_answer_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_ca_bundle, "FETCH_LIMIT_BYTES", 100)
    with pytest.raises(BundleError) as caught:
        fetch_bundle(f"{address}/long")
    assert str(caught.value) == f"{address}/long is longer than 100 bytes, so it is no bundle of certificates."


def test_url_without_tls_is_refused() -> None:
    with pytest.raises(BundleError) as caught:
        fetch_bundle("http://truststore.example.com/global-bundle.pem")
    assert str(caught.value) == (
        "http://truststore.example.com/global-bundle.pem has no TLS, so nobody vouches for what it serves. "
        "Give an https URL."
    )


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        fetch_bundle(str(tmp_path / "none.pem"))
    assert str(caught.value).startswith(f"{tmp_path / 'none.pem'} cannot be read: ")


def test_binary_file_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "bundle.p7b"
    source.write_bytes(b"\x30\x82\xff")
    with pytest.raises(BundleError) as caught:
        fetch_bundle(str(source))
    assert str(caught.value) == f"{source} holds other bytes than ASCII text, so it is no PEM bundle."


def test_default_source_is_the_public_original() -> None:
    assert update_ca_bundle.ORIGINAL == "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
