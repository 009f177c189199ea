"""The worker's web pages: what is known of an event, and how the worker is.

lookup.py    tables -> what is known of one id, here and at the other workers
pages.py     routes; HTML or JSON by Accept or by a `.json` ending
"""
