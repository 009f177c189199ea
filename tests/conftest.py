"""What all tests share: one Kafka a session, names of their own on it, and an environment without our variables."""

import os
import secrets
from typing import Any, NamedTuple

import hypothesis
import pytest

from app.kafka import Kafka
from tests.secured import Authority, Secured

pytest.register_assert_rewrite("sinks.conformance")  # so that its failures show the values

# The same examples each time: a test that fails now and then is a defect of the test. HYPOTHESIS_PROFILE=explore looks
# for new ones. How long it takes to make or to try them says something of the machine, which has other work, too.
_ANY_MACHINE: Any = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("repeatable", derandomize=True, **_ANY_MACHINE)
hypothesis.settings.register_profile("explore", max_examples=1000, **_ANY_MACHINE)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# read before `environment` takes it away
BROKER = os.environ.get("CAPISTREAM_BROKER")


#: Records of tests have times of long ago. A broker that looked every five minutes for what is too old would take them away
#: now and then, in the middle of a test.
KEEP = {"log.retention.check.interval.ms": str(86_400_000)}


class External(NamedTuple):
    """A Kafka that somebody else runs: no test may stop it."""

    brokers: str


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """A running Kafka: `kafka.brokers`. The one of CAPISTREAM_BROKER if that is set."""
    if BROKER:
        yield External(BROKER)
        return
    with Kafka(tmp_path_factory.mktemp("kafka"), properties=KEEP) as broker:
        yield broker


@pytest.fixture(scope="session")
def secured(tmp_path_factory):
    """A running Kafka that asks who one is, and its authority."""
    folder = tmp_path_factory.mktemp("secured")
    with Secured(folder / "kafka", Authority(folder / "authority")) as broker:
        yield broker


@pytest.fixture
def prefix():
    """First part of the names of a test's topics and groups: other tests use the same Kafka."""
    return f"t-{secrets.token_hex(6)}"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Settings of whoever runs the tests must not change their outcome."""
    for name in os.environ:
        if name.startswith("CAPISTREAM_"):
            monkeypatch.delenv(name)


def pytest_collection_modifyitems(items):
    for item in items:
        if {"kafka", "secured"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker("kafka")
