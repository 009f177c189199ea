"""`capistream doctor` on a system that works: Kafka, a worker, a collector and platforms."""

import asyncio
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from app.cli import main
from tests.system.conftest import System, eventually
from tests.system.test_delivery import subscribed

pytestmark = pytest.mark.fault


async def examined(system: System) -> tuple[int, dict[str, Any]]:
    """(exit status, what -> the finding about it)"""
    line = ["doctor", "--json", "--config", system.addresses["config"]]
    result = await asyncio.to_thread(CliRunner().invoke, main, line)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, {one["what"]: one for one in orjson.loads(result.stdout)["findings"]}


async def test_a_system_that_works_has_no_problem_and_its_worker_is_seen(shared_system):
    await shared_system.post(subscribed("doctor-1"), key="secret_key")
    await shared_system.settled("doctor-1")
    taken = [await shared_system.accepted(name) for name in ("meta", "ga4")]

    async def done() -> Any:
        status, found = await examined(shared_system)
        return found["waiting"]["detail"] == "nothing" and (status, found)

    status, found = await eventually(done, "nothing that waits")

    assert [one for one in found.values() if one["state"] == "problem"] == []
    assert status == 0
    assert found[f"group {shared_system.demo.config.kafka.prefix}"]["detail"] == "1 workers on 1 hosts"
    assert found["local state"]["detail"] == "1 workers' folders, 1 in use"
    assert "4.0 or newer" in found["version"]["detail"]
    assert "Kafka's controller shows the same" in found["our clock"]["detail"]
    assert "does not count" in found["destinations.ga4"]["detail"]
    assert "capistream destinations test meta" in found["destinations.meta"]["detail"]
    assert [await shared_system.accepted(name) for name in ("meta", "ga4")] == taken, "nothing was recorded"
