"""What the other workers know: each is asked the same, and answers what it has itself."""

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import structlog
from yarl import URL

from app.events import Json
from app.view.access import Access

if TYPE_CHECKING:
    from app.main import Pipeline

log = structlog.get_logger()

PATIENCE = 3.0  # seconds that another worker has for its answer


def address(pipeline: "Pipeline") -> str:
    """Our own, as the others know it."""
    return str(pipeline.app.conf.canonical_url).rstrip("/")


async def ask(pipeline: "Pipeline", access: Access, path: str) -> dict[str, Json | None]:
    """The JSON objects that the others answer at this path, by their addresses; None: no answer."""
    others = sorted({str(url).rstrip("/") for url in pipeline.app.assignor.tables_metadata()} - {address(pipeline)})
    answers = await asyncio.gather(*(_ask(pipeline, access, url, path) for url in others))
    return dict(zip(others, answers, strict=True))


async def _ask(pipeline: "Pipeline", access: Access, url: str, path: str) -> Json | None:
    session = await pipeline.http()
    try:
        async with session.get(
            URL(url + path, encoded=True),
            headers=access.sign(path),
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                log.info("view.worker_silent", worker=url, status=response.status)
                return None
            answer: Any = orjson.loads(await response.read())
            return answer if isinstance(answer, dict) else None
    except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as exc:
        log.info("view.worker_silent", worker=url, error=type(exc).__name__)
        return None
