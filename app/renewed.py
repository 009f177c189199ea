"""A secret that every request is compared with: its file may be renewed while the process runs."""

import time
from collections.abc import Callable

import structlog

from app.errors import SettingsError
from app.fields import Secret

log = structlog.get_logger()

EVERY = 10.0  # seconds after which it is read again


class Renewed:
    def __init__(self, secret: Secret, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises SettingsError."""
        self._secret, self._clock = secret, clock
        self._value, self._at = secret.read().encode(), clock()

    def read(self) -> bytes:
        """The secret. While it cannot be read, as in the moment in which it is replaced, it is what it was."""
        if self._clock() - self._at >= EVERY:
            self._at = self._clock()
            try:
                self._value = self._secret.read().encode()
            except SettingsError as exc:
                log.warning("secret.unreadable", mistakes=exc.mistakes)  # where it was looked for
        return self._value
