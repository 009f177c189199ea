"""What can go wrong, by who has to act.

    CapistreamError
    ├── SettingsError     whoever wrote the configuration: names the place
    ├── BadEvent          whoever sent the event: names the field; becomes a 4xx or a dead letter
    └── Unavailable       whoever runs Kafka or the network: try again

`app.lossless.Lost` is not an error of anybody: the partition moved to another worker.
"""


class CapistreamError(Exception):
    """Base of all errors that we raise on purpose."""


class SettingsError(CapistreamError):
    """The configuration is wrong. `mistakes` is one line each: place, then what is wrong."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class BadEvent(CapistreamError):
    """An event that cannot be taken.

    `reason` is a short fixed code (a metric label), `field` the place in the sender's own words, `detail` a sentence for
    people. None of the three ever holds a value of the event: values can be personal data.
    """

    def __init__(self, reason: str, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}" if field else detail)
        self.reason = reason
        self.field = field
        self.detail = detail


class Unavailable(CapistreamError):
    """Something outside does not answer now."""
