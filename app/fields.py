"""What settings are made of: parts, durations, sizes, secrets, expressions."""

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Self

import jmespath
import orjson
from jmespath.exceptions import JMESPathError
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.errors import SettingsError

_DURATION = r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)\s*"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: Any) -> Any:
    """`"10s"`, `"24h"`, `"30d"`, `"500ms"` or a number of seconds."""
    match = re.fullmatch(_DURATION, value, re.ASCII) if isinstance(value, str) else None
    if match:
        return float(match[1]) * _UNITS[match[2]]
    if isinstance(value, str | bool):
        raise ValueError("a duration is a number with ms, s, m, h or d, for example 10s")  # noqa: TRY004 (as below)
    return value


_SIZE = r"\s*(\d+)\s*(B|kB|KiB|MB|MiB|GB|GiB)\s*"
_SIZES = {"B": 1, "kB": 1000, "KiB": 1 << 10, "MB": 10**6, "MiB": 1 << 20, "GB": 10**9, "GiB": 1 << 30}


def _bytes(value: Any) -> Any:
    """`"1GiB"`, `"500MB"` or a number of bytes."""
    match = re.fullmatch(_SIZE, value, re.ASCII) if isinstance(value, str) else None
    if match:
        return int(match[1]) * _SIZES[match[2]]
    if isinstance(value, str | bool):
        raise ValueError("a size is a number with B, kB, KiB, MB, MiB, GB or GiB, for example 1GiB")  # noqa: TRY004 (as above)
    return value


def between(least: float, most: float) -> AfterValidator:
    """For durations: `Field(ge=...)` would say its part in the JSON schema of the text, too."""

    def check(value: float) -> float:
        if not least <= value <= most:
            raise ValueError(f"must be between {least:g} and {most:g} seconds")
        return value

    return AfterValidator(check)


def http_address(value: str) -> str:
    """An http address without a slash at its end. Raises ValueError that says what is wrong."""
    if not re.match(r"^https?://[^/\s?#]+", value):
        raise ValueError("an address that begins with https:// (or http:// for an emulator)")
    if "@" in re.split("[/?#]", value.split("://", 1)[1], maxsplit=1)[0]:
        raise ValueError("an address without a user name or password: a secret is never in this file")
    return value.rstrip("/")


@lru_cache(maxsize=4096)
def compiled(expression: str) -> Any:
    """Compile a JMESPath expression (https://jmespath.org/specification.html). Raises ValueError that says what is wrong."""
    try:
        return jmespath.compile(expression)
    except JMESPathError as exc:
        why = re.sub(r"^(Bad|Invalid) jmespath expression: |,? ?(for expression)?:$", "", str(exc).splitlines()[0])
        raise ValueError(
            f"not a JMESPath expression: {why}; docs/sources.md#expressions has some to start from"
        ) from None


class BadExpression(ValueError):
    """An expression cannot be worked out for a value, or finds what no JSON can hold. Quotes nothing of the value."""

    def __init__(self, error: str, *, found: bool) -> None:
        """`error` is the kind of it; `found` says which of the two it is."""
        super().__init__(f"no JSON can hold what it finds: {error}" if found else error)
        self.error, self.found = error, found


def find(expression: str, value: Any) -> Any:
    """What a JMESPath expression finds in this value, in a copy, as JSON holds it. Raises BadExpression."""
    try:
        found = compiled(expression).search(value)
        if found is None or isinstance(found, str | bool):
            return found
        return orjson.loads(orjson.dumps(found))
    except JMESPathError as exc:  # its text quotes the value
        raise BadExpression(type(exc).__name__, found=False) from None
    except (ArithmeticError, TypeError, ValueError, AttributeError, LookupError) as exc:
        raise BadExpression(type(exc).__name__, found=True) from None


def _expression(value: str) -> str:
    compiled(value)
    return value


Seconds = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False),
    BeforeValidator(
        _seconds, json_schema_input_type=Annotated[float, Field(ge=0)] | Annotated[str, Field(pattern=f"^{_DURATION}$")]
    ),
]
Bytes = Annotated[
    int,
    Field(ge=0),
    BeforeValidator(
        _bytes, json_schema_input_type=Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=f"^{_SIZE}$")]
    ),
]
Expression = Annotated[str, AfterValidator(_expression)]
NAME = r"^[a-z0-9][a-z0-9_-]{0,39}$"
Name = Annotated[str, Field(pattern=NAME)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,99}", value):
        # not echoed: it may be the secret itself
        raise ValueError(
            "the name of an environment variable, in capitals, digits and underscores; never the secret itself"
        )
    return value


class Secret(Part):
    """Where a secret is read from: exactly one of the two. Files are read again whenever the secret is asked for."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    env: Annotated[str, AfterValidator(_variable)] | None = None
    """Name of an environment variable whose stripped content is the secret."""
    file: Path | None = None
    """Path of a file whose stripped content is the secret."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("give either env or file")
        return self

    def read(self) -> str:
        """The secret. Raises SettingsError naming where it was looked for."""
        if self.env is not None:
            value = os.environ.get(self.env, "").strip()
            if not value:
                raise SettingsError([f"environment variable {self.env} is not set or empty"])
            return value
        assert self.file is not None
        try:
            value = self.file.read_text("utf-8").strip()
        except OSError as exc:
            raise SettingsError([f"secret file {self.file}: {exc.strerror}"]) from exc
        except UnicodeDecodeError:
            raise SettingsError([f"secret file {self.file} is not text in UTF-8"]) from None
        if not value:
            raise SettingsError([f"secret file {self.file} is empty"])
        return value


def _only_reference(value: Any) -> Any:
    if not isinstance(value, dict | Secret):
        # not echoed: it may be the secret itself
        raise ValueError(  # noqa: TRY004 (pydantic reads ValueError)
            'a secret is never in this file: write { env = "NAME" } or { file = "/path" }'
        )
    return value


SecretRef = Annotated[Secret, BeforeValidator(_only_reference)]
