"""The programs of docs/clients.md, with the test's addresses and keys in the place of the page's."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from tests.collecting import SECRET_KEY, WRITE_KEY

PAGE = Path(__file__).parents[2] / "docs/clients.md"


def names() -> list[str]:
    return re.findall(r"<!-- runs: (\S+) -->", PAGE.read_text())


def program(name: str, url: str) -> str:
    """The block of this name, pointed at a collector."""
    found = re.search(rf"<!-- runs: {name} -->\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found, name
    where, text = urlsplit(url), found[1]
    for theirs, ours in (
        ("https://collect.shop.example", url),
        ("collect.shop.example", where.netloc),
        ('protocol: "https"', f'protocol: "{where.scheme}"'),
        ("wk_public_in_the_browser", WRITE_KEY),
        ("sk_only_on_the_server", SECRET_KEY),
    ):
        text = text.replace(theirs, ours)
    return text
