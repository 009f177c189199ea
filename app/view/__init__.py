"""The worker's web pages, each of them JSON, too.

Read in this order:

    pages.py            the routes, put together; what probes and Prometheus ask
    on_events.py        an event's journey: lookup.py (what the tables know, at all workers) and payloads.py (what Kafka still has),
                        made into one by journey.py, with values as shown.py lets them be seen
    on_live.py          the newest conversions (live.py), as they are read (feed.py), and the stream that keeps the page new
    on_dedup.py         how copies meet (pairs.py), told from the newest of them (tail.py); clocks and state
    on_destinations.py  how destinations do (standing.py), what is not finished (backlog.py), what was answered (answers.py); pause
                        and resume
    on_letters.py       dead letters, one and many (dead.py)
    site.py             what all pages share: templates, JSON, forms, errors
    access.py           who asks, and what they may do        audit.py  who looked at what, and did what
    fresh.py            what was read a moment ago
    charts.py           small charts
    peers.py            what the other workers know           words.py  codes in words
    api.py              the JSON as types, and as an OpenAPI document
"""
