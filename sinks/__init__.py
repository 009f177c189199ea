"""The platforms: one file each, pure. To add one, write `sinks/<kind>.py` and add its line here.

A sink says what its platform wants and what the answers mean (see `_base.Sink`); agents/deliver does the sending, the
same way for all. The key is the sink's `kind`, the word after `sink =` in the configuration.
"""

from sinks._base import Sink
from sinks.ga4 import Ga4
from sinks.meta import Meta

SINKS: dict[str, type[Sink]] = {
    "ga4": Ga4,
    "meta": Meta,
}
