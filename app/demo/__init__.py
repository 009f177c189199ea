"""`capistream demo`: the whole system on one machine, on real input.

sessions.jsonl   a few hundred shop sessions, made by generate.py
traffic.py       plays such a file (also `capistream send`)
balance.py       reads our topics and keeps the books
run.py           starts everything, shows the books, ends everything
demo.toml        the demo's configuration
"""
