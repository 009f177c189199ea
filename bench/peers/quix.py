"""The same in Quix Streams: a stateful filter, RocksDB with a changelog, at least once.

Environment: BROKER, SOURCE, OUTPUT, FOLDER
"""

import os
from typing import Any

from quixstreams import Application, State

app = Application(
    broker_address=os.environ["BROKER"],
    consumer_group=f"quix-{os.environ['SOURCE']}",
    auto_offset_reset="earliest",
    state_dir=os.environ["FOLDER"],
    loglevel="WARNING",
)
source = app.topic(os.environ["SOURCE"], key_deserializer="bytes", value_deserializer="json")
output = app.topic(os.environ["OUTPUT"], key_serializer="bytes", value_serializer="json")


def is_new(_event: Any, state: State) -> bool:  # state is by message key, which is the event's id
    if state.get("seen") is not None:
        return False
    state.set("seen", 1)
    return True


app.dataframe(source).filter(is_new, stateful=True).to_topic(output)

if __name__ == "__main__":
    app.run()
