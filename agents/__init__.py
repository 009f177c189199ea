"""The pipeline, one file a stage, in the order of an event's way:

    normalize   the customer's own topics -> capistream.events (the collector writes there directly)
    clock       the sources' watermarks -> the log's clock, as records of capistream.events
    dedup       capistream.events -> hold, merge, once per conversion; decide per destination -> capistream.to.<destination>
    deliver     capistream.to.<destination> -> the platform; what became of it -> receipts, dead letters, outcomes
    tidy        what is finished or deleted goes from Kafka in time

Each stage is one class bound to a `Pipeline` (app/main.py); what it decides is in pure modules of app/.
"""
