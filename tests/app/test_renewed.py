"""app/renewed.py: a secret that is read again while the process runs."""

from pathlib import Path

import pytest

from app.errors import SettingsError
from app.fields import Secret
from app.renewed import EVERY, Renewed


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "secret"
    found.write_text("the first")
    return found


def test_a_file_is_read_again_when_its_time_is_over(path):
    clock = Clock()
    secret = Renewed(Secret(file=path), clock)
    path.write_text("the second\n")

    clock.now = EVERY - 1
    assert secret.read() == b"the first"
    clock.now = EVERY
    assert secret.read() == b"the second"


def test_while_it_cannot_be_read_it_is_what_it_was(path):
    clock = Clock()
    secret = Renewed(Secret(file=path), clock)
    path.unlink()

    clock.now = EVERY
    assert secret.read() == b"the first"
    path.write_text("the second")
    clock.now = 2 * EVERY
    assert secret.read() == b"the second"


def test_what_cannot_be_read_at_the_start_is_a_mistake(tmp_path):
    with pytest.raises(SettingsError, match="secret file"):
        Renewed(Secret(file=tmp_path / "nothing"))
