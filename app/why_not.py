"""Why Kafka does not let us in, in a line that names the setting to look at. Asked after no broker would talk to a client."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.admin import SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest

from app.bearer import NoToken
from app.errors import SettingsError, Unavailable
from app.settings import Kafka, Sasl, Tls

ASK_MAX = 5.0  # seconds for the question, per broker


class NotLetIn(SettingsError, KafkaConnectionError):
    """Kafka is there, and does not let us in by these settings.

    A mistake of the settings to whoever starts something, and an error of Kafka's to what runs and tries again.
    """

    def __str__(self) -> str:
        return "\n".join(self.mistakes)


async def ask(brokers: str, kafka: Kafka, options: Mapping[str, Any]) -> KafkaError:
    """Ask each broker once. `options` are those of a client. NotLetIn, where somebody has to change something."""
    said: list[str] = []
    connect = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    for host, port, _ in collect_hosts(brokers, randomize=False):
        try:
            async with asyncio.timeout(ASK_MAX):
                await _knock(host, port, kafka, connect)
        except NotLetIn as exc:
            return exc
        except Unavailable as exc:
            said.append(f"{host}:{port}: {exc}")
        except TimeoutError:
            said.append(f"{host}:{port}: no answer")
        except OSError as exc:
            said.append(f"{host}:{port}: {exc.strerror or type(exc).__name__}")
        else:
            said.append(f"{host}:{port}: answers by now")
    return KafkaConnectionError("; ".join(said))


async def _knock(host: str, port: int, kafka: Kafka, connect: Mapping[str, Any]) -> None:
    """Raises what a connection to this broker fails with: NotLetIn, Unavailable, OSError."""
    where, sasl, tls = f"{host}:{port}", kafka.sasl, kafka.tls
    try:
        connection = await create_conn(host, port, **connect)
    except ssl.SSLCertVerificationError as exc:
        raise NotLetIn([_untrusted(where, exc, tls)]) from exc
    except SaslAuthenticationFailed as exc:
        raise NotLetIn([_refused(where, sasl)]) from exc
    except UnsupportedSaslMechanismError as exc:
        takes = ", ".join(await _mechanisms(host, port, connect))
        raise NotLetIn([f"kafka.sasl.mechanism: {where} takes {takes or 'another one'}"]) from exc
    except IllegalSaslStateError as exc:
        raise NotLetIn([f"kafka.sasl: {where} wants no log-in: leave [kafka.sasl] out, or use another port"]) from exc
    except NoToken as exc:
        if isinstance(exc.__cause__, SettingsError):
            raise NotLetIn([f"kafka.sasl.token: {exc.__cause__}"]) from exc
        raise Unavailable(str(exc.args[0])) from exc
    except (KafkaError, ConnectionError, ssl.SSLError) as exc:
        if isinstance(exc, ConnectionRefusedError):
            raise Unavailable("nobody listens there") from exc
        raise Unavailable(f"it hangs up: {_suspicion(tls)}") from exc
    try:
        await connection.send(MetadataRequest([], allow_auto_topic_creation=False))
    except KafkaError as exc:  # a broker that wants a log-in answers only what a client has to know before
        raise Unavailable("it hangs up" + ("" if sasl else ": it may want a log-in ([kafka.sasl])")) from exc
    finally:
        connection.close()


async def _mechanisms(host: str, port: int, connect: Mapping[str, Any]) -> list[str]:
    """Those that this broker takes; none, where it does not say."""
    tls = connect.get("ssl_context")
    try:
        connection = await create_conn(host, port, ssl_context=tls, security_protocol="SSL" if tls else "PLAINTEXT")
        try:
            answer = await connection.send(SaslHandShakeRequest("?"))
        finally:
            connection.close()
    except (KafkaError, OSError, TimeoutError):
        return []
    return sorted(answer.enabled_mechanisms)


def _untrusted(where: str, exc: ssl.SSLCertVerificationError, tls: Tls | None) -> str:
    said = exc.verify_message.rstrip(".") or "certificate verify failed"
    if "mismatch" in said:
        return f"kafka.brokers: {where} shows a certificate of another host ({said}): name it as the certificate does"
    if "expired" in said or "not yet valid" in said:
        return f"kafka.brokers: {where} shows a certificate that does not hold now ({said})"
    known = f"by {tls.ca}" if tls and tls.ca else "to this system"
    return f"kafka.tls.ca: whoever signed the certificate of {where} is not known {known} ({said}): name a file with it"


def _refused(where: str, sasl: Sasl | None) -> str:
    if sasl and sasl.token:
        return f"kafka.sasl.token: {where} does not take its token"
    return f"kafka.sasl.password: {where} does not let {sasl and sasl.user} in: it is wrong, or there is no such user"


def _suspicion(tls: Tls | None) -> str:
    """What it may be that a broker says nothing and ends the connection."""
    if tls is None:
        return "does this port want TLS ([kafka.tls])?"
    if tls.certificate is None:
        return "does it want a certificate of ours (kafka.tls.certificate), or speak no TLS at all?"
    return "does it trust whoever signed kafka.tls.certificate, or speak no TLS at all?"
