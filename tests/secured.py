"""A Kafka that asks who one is: certificates, users, and ACLs that its StandardAuthorizer enforces."""

import datetime as dt
import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app import processes, wire
from app.kafka import Kafka

CODES = {name: code for code, name in wire.OPERATIONS.items()}
USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
USERS = ("worker", "collector", "operator", "stranger")
PEM = serialization.Encoding.PEM


def password_of(user: str) -> str:
    return user[::-1]


class Authority:
    """Signs certificates; `ca` is the file with its own."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._own = self._sign(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=0))
        self.ca = folder / f"{name}.ca.pem"
        self.ca.write_bytes(self._own.public_bytes(PEM))

    def issue(self, name: str, host: str = "127.0.0.1", password: str = "") -> tuple[Path, Path]:
        """(certificate with the authority's own, private key) for this common name and address."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
        made = self._sign(subject, key.public_key(), x509.BasicConstraints(ca=False, path_length=None), address)
        locked = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        certificate, private = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(made.public_bytes(PEM) + self._own.public_bytes(PEM))
        private.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, locked))
        return certificate, private

    def _sign(self, subject: x509.Name, key: Any, *extensions: x509.ExtensionType) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        made = x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key,
            serial_number=x509.random_serial_number(),
            not_valid_before=now - dt.timedelta(hours=1),
            not_valid_after=now + dt.timedelta(days=1),
        )
        ours = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        for extension in (*extensions, x509.SubjectKeyIdentifier.from_public_key(key), ours):
            made = made.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        if subject == self._name:  # Python 3.13 takes no authority that does not say what its key is for
            made = made.add_extension(
                x509.KeyUsage(**dict.fromkeys(USES, False) | {"key_cert_sign": True}), critical=True
            )
        return made.sign(self._key, hashes.SHA256())


class Secured(Kafka):
    """With a listener for each way in, beside a plain one where everybody is an administrator.

    USERS may log in with SCRAM-SHA-512 or PLAIN, with their name backwards as password; anybody may with an unsigned token, or with
    a certificate of the authority's. Creates topics when asked for them, as Kafka does by default.
    """

    def __init__(self, folder: Path, authority: Authority, **properties: str) -> None:
        self.authority = authority
        certificate, key = authority.issue("broker")
        store = folder / "broker.keystore.pem"
        store.parent.mkdir(parents=True, exist_ok=True)
        store.write_bytes(key.read_bytes() + certificate.read_bytes())
        listeners = {one: processes.free_port() for one in ("SSL", "SASL_SSL", "SASL_PLAINTEXT")}
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required " + " ".join(
            f'user_{name}="{password_of(name)}"' for name in USERS
        )
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required"
        bearer = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=x"
        super().__init__(
            folder,
            heap="256m",
            listeners=listeners,
            properties={
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(store),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(authority.ca),
                "listener.name.ssl.ssl.client.auth": "required",
                **{
                    f"listener.name.{one}.{mechanism}.sasl.jaas.config": f"{login};"
                    for one in ("sasl_ssl", "sasl_plaintext")
                    for mechanism, login in (("scram-sha-512", scram), ("plain", plain), ("oauthbearer", bearer))
                },
                "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN,OAUTHBEARER",
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
                "auto.create.topics.enable": "true",  # as it is by default
                **properties,
            },
        )
        for name in USERS:
            self._format += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password_of(name)}]"]

    def at(self, protocol: str) -> str:
        return f"127.0.0.1:{self.listeners[protocol]}"

    async def grant(self, principal: str, acls: Iterable[Any]) -> None:
        """Exactly these of app/acls.py."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.brokers)
        await admin.start()
        try:
            for acl in acls:
                kind, pattern = {"topic": 2, "group": 3}[acl.resource], 4 if acl.prefixed else 3
                for operation in acl.operations:
                    asked = CreateAclsRequest(kind, acl.name, pattern, principal, "*", CODES[operation], 3)
                    answer = await admin._send_to_controller(asked)
                    assert [code for code, _ in answer.creation_responses] == [0], answer
        finally:
            await admin.close()
