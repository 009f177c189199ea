"""Where somebody lives, as several platforms want it: states and ZIP codes of the USA, and hashes of places."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from app.events import User
from app.identity import letters_only, sha256

_US_STATES = (
    "al alabama|ak alaska|az arizona|ar arkansas|ca california|co colorado|ct connecticut|de delaware|"
    "dc district of columbia|fl florida|ga georgia|hi hawaii|id idaho|il illinois|in indiana|ia iowa|ks kansas|"
    "ky kentucky|la louisiana|me maine|md maryland|ma massachusetts|mi michigan|mn minnesota|ms mississippi|"
    "mo missouri|mt montana|ne nebraska|nv nevada|nh new hampshire|nj new jersey|nm new mexico|ny new york|"
    "nc north carolina|nd north dakota|oh ohio|ok oklahoma|or oregon|pa pennsylvania|pr puerto rico|"
    "ri rhode island|sc south carolina|sd south dakota|tn tennessee|tx texas|ut utah|vt vermont|va virginia|"
    "wa washington|wv west virginia|wi wisconsin|wy wyoming"
)
_US_CODES = {name: code for code, _, name in (state.partition(" ") for state in _US_STATES.split("|"))}


@lru_cache(maxsize=4096)
def us_state(region: str) -> str:
    """Two lower-case letters, from a code (CA, US-CA) or a name; an empty text where it is neither."""
    text = letters_only(region.replace("-", " "), digits=True).removeprefix("us ")
    return text if re.fullmatch("[a-z]{2}", text) else _US_CODES.get(text, "")


#: City, region, postal code and country -> what a platform wants of them, by its names; empty texts where it wants nothing.
Writes = Callable[[str, str, str, str], Mapping[str, str]]

_LONGEST = 200  # characters of a place; longer ones are no places, and not worth one in the cache


def hashes_of_places(write: Writes, names: Mapping[str, str]) -> Callable[[User], Mapping[str, list[str]]]:
    """Where somebody lives as lists of one hash, by the platform's names: many people live in one town, so most are known already.

    What arrived as a hash stays one, unless it is told in clear, too; `names` are the platform's for city, region and postal code.
    """

    def make(*place: str) -> dict[str, list[str]]:
        return {name: [sha256(text)] for name, text in write(*place).items() if text}

    known = lru_cache(maxsize=1 << 14)(make)

    def of(user: User) -> Mapping[str, list[str]]:
        city, region = user.get("city", ""), user.get("region", "")
        postal_code, country = user.get("postal_code", ""), user.get("country", "")
        short = len(city) + len(region) + len(postal_code) < _LONGEST
        found = (known if short else make)(city, region, postal_code, country)
        if places := user.get("places"):
            return {theirs: [places[ours]] for ours, theirs in names.items() if ours in places} | found
        return found

    return of


@lru_cache(maxsize=4096)
def us_zip(postal_code: str) -> str:
    """Five digits, without the four that may follow; an empty text where it is no ZIP code."""
    match = re.fullmatch(r"([0-9]{5})(?:[ -]?[0-9]{4})?", postal_code.strip())
    return match[1] if match else ""
