"""The platforms: one file each, pure. To add one, write `sinks/<kind>.py` and add its line here: docs/add-a-sink.md.

A sink says what its platform wants and what the answers mean (see `_base.Sink`); agents/deliver does the sending, the
same way for all. The key is the sink's `kind`, the word after `sink =` in the configuration.
"""

from collections.abc import Mapping

from sinks._base import Sink
from sinks._installed import WithInstalled
from sinks.ga4 import Ga4
from sinks.google_ads import GoogleAds
from sinks.meta import Meta
from sinks.pinterest import Pinterest
from sinks.tiktok import TikTok
from sinks.webhook import Webhook

BUILT_IN: dict[str, type[Sink]] = {
    "ga4": Ga4,
    "google_ads": GoogleAds,
    "meta": Meta,
    "pinterest": Pinterest,
    "tiktok": TikTok,
    "webhook": Webhook,
}

#: These and those of installed packages.
SINKS: Mapping[str, type[Sink]] = WithInstalled(BUILT_IN)
