"""app/doctor/place.py: nobody waits for ever, and what several ask is asked once."""

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app.doctor.place import Place, reach
from app.processes import free_port
from tests.app.doctor.facts import settings

ROOT = Path(__file__).parents[3]
HANGS = """
import asyncio, time
from app.doctor.place import Threads

async def main():
    asyncio.get_running_loop().set_default_executor(Threads())
    print(await asyncio.to_thread(lambda: "answered"))
    try:
        async with asyncio.timeout(0.1):
            await asyncio.to_thread(time.sleep, 600)
    except TimeoutError:
        print("left")

asyncio.run(main())
"""


def test_a_thread_that_never_ends_does_not_hold_up_the_end_of_the_process():
    begun = time.monotonic()

    answer = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )

    assert answer.stdout.split() == ["answered", "left"]
    assert time.monotonic() - begun < 30


async def test_an_error_in_a_thread_reaches_who_waits():
    from app.doctor.place import Threads

    asyncio.get_running_loop().set_default_executor(Threads())

    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(lambda: 1 // 0)


async def test_what_several_ask_is_asked_once_and_outlives_who_gave_up():
    place, asked, answered = Place(settings(), 0.0), [], asyncio.Event()

    async def ask() -> Any:
        asked.append(1)
        await answered.wait()
        return "an answer"

    impatient = asyncio.create_task(place.once("it", ask))
    patient = asyncio.create_task(place.once("it", ask))
    await asyncio.sleep(0)
    impatient.cancel()
    answered.set()

    assert await patient == "an answer"
    assert asked == [1]
    await place.close()


async def test_why_nothing_can_be_reached_is_told():
    assert await reach("127.0.0.1", free_port()) == "Connection refused"
    assert await reach("nobody.invalid", 9092) == "its name cannot be resolved"


async def test_what_listens_is_reached():
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
        assert await reach("127.0.0.1", server.sockets[0].getsockname()[1]) == ""


def test_every_page_that_a_finding_names_is_there():
    text = "".join(path.read_text() for path in (ROOT / "app" / "doctor").glob("*.py"))
    named = set(re.findall(r"\"(docs/[a-z-]+\.md)(#[a-z-]+)?\"", text.replace("{RUNBOOK}", "docs/runbook.md")))

    assert len(named) > 10
    for page, anchor in named:
        headings = re.findall(r"^#+ (.*)", (ROOT / page).read_text(), re.MULTILINE)
        anchors = {"#" + re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, (page, anchor)
