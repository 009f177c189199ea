"""Exits 0 when one of the addresses given answers 200: the health check of the image, which has no curl.

python healthy.py http://127.0.0.1:6066/livez [...]
"""

import http.client
import sys
from urllib.parse import urlsplit

PATIENCE = 3.0  # seconds for each address


def answers(address: str) -> bool:
    """Asks without proxies and redirects, whatever the environment says."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=PATIENCE)
    try:
        connection.request("GET", url.path or "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not any(answers(address) for address in sys.argv[1:]))
