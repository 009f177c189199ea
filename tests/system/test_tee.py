"""gtag, the back end and two destinations: what GA4 has from its own tag it gets once, the others get the merged conversion."""

import aiohttp
import pytest
from yarl import URL

from app.demo import run
from tests.collecting import google, until
from tests.system.conftest import System

pytestmark = pytest.mark.fault

HIT = (
    "/g/collect?v=2&tid=G-DEMO123456&cid=1234567890.1699999999&sid=1795420000&_s=1&gcs=G111&gcd=13r3r3r3r5"
    "&dl=https%3A%2F%2Fshop.example%2Fthanks%3Ffbclid%3Dabc"
)


async def test_an_order_that_gtag_and_the_shop_report_goes_to_ga4_by_gtags_own_hit(kafka, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPISTREAM_BROKER", kafka.brokers)
    folder = tmp_path / "system"
    folder.mkdir()
    async with google() as there:
        more = f'\n[collector.ga4.G-DEMO123456]\nsite = "shop"\nendpoint = "{there.url}"\n'
        demo = run.Demo(
            say=lambda _: None, folder=folder, destinations=("meta", "ga4"), ports=run.free_ports(), more=more
        )
        try:
            await demo.start()
            async with aiohttp.ClientSession() as http:
                system = System(demo, http)
                url = URL(f"{system.addresses['collector']}{HIT}", encoded=True)
                lines = b"en=purchase&ep.transaction_id=T-77&epn.value=59.98&cu=EUR\r\nen=page_view"
                async with http.post(url, data=lines, headers={"User-Agent": "Mozilla/5.0 (X11)"}) as answer:
                    assert answer.status == 204
                order = {
                    "event_name": "purchase",
                    "user": {"email": "ada@example.com"},
                    "commerce": {"transaction_id": "T-77", "value": 59.98, "currency": "EUR"},
                }
                assert (await system.post(order, key="secret_key"))[0] == 200

                journey = await system.settled("T-77")

                (conversion,) = journey["conversions"]
                assert len(conversion["copies"]) == 2
                there_is = conversion["destinations"]
                assert there_is["ga4"]["state"] == "skipped"
                assert "relayed by the collector" in str(there_is["ga4"])
                assert there_is["meta"]["state"] == "delivered"
                await until(lambda: there.got)
                assert [body for _, _, body, _ in there.got] == [lines]
                assert await system.accepted("ga4") == []
                assert len(await system.accepted("meta", event_id="T-77")) == 1
        finally:
            demo.stop()
