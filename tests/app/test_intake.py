"""app/intake.py: results of normalize to rows for Kafka, every one counted."""

import orjson
import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from app import intake, keys
from app.dead_letter import DeadLetter
from app.events import CANONICAL_NAMES, Origin
from app.formats import Ignored
from app.normalize import Inlet, Normalized, Refused, normalize_bytes
from app.topics import Names
from tests.factories import make_event

NAMES = Names("t")
ORIGIN: Origin = {"topic": "orders", "partition": 0, "offset": 7}
NOW = 1_795_420_800_000
PARTITIONS = 12


def collected(*results):
    rows = intake.new_rows()
    intake.collect(rows, results, ORIGIN, "normalize", NAMES, PARTITIONS, NOW)
    return rows


def count(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def counted():
    """How much a metric has grown since the test began."""
    before = {(s.name, tuple(sorted(s.labels.items()))): s.value for m in REGISTRY.collect() for s in m.samples}

    def grown(name, **labels):
        return count(name, **labels) - before.get((name, tuple(sorted(labels.items()))), 0.0)

    return grown


def test_an_event_goes_to_the_partition_of_its_conversion():
    event = make_event()

    rows = collected(Normalized(event))

    where = ("t.events", keys.partition("1001", PARTITIONS))
    assert rows == {where: [(keys.key(event), orjson.dumps(event), NOW)]}


def test_copies_of_one_conversion_meet_in_one_partition_in_order():
    pixel, server = make_event(source="pixel", event_id="a"), make_event(source="server", event_id="b")

    (rows,) = collected(Normalized(pixel), Normalized(server)).values()

    assert [orjson.loads(value)["source"] for _, value, _ in rows] == ["pixel", "server"]


def test_what_is_refused_becomes_a_dead_letter_with_its_place_in_the_body():
    rows = collected(Refused("missing", "event_name", "is missing", 3))

    letter = DeadLetter("normalize", "missing", ORIGIN, 3, "event_name", "is missing")
    (((topic, partition), [(key, value, _)]),) = rows.items()
    assert (topic, partition, key) == ("t.dead", letter.partition(PARTITIONS), letter.id.encode())
    said = orjson.loads(value)
    assert said["origin"] == ORIGIN
    assert (said["reason"], said["field"], said["index"]) == ("missing", "event_name", 3)


def test_what_is_ignored_makes_no_row_but_is_counted(counted):
    assert collected(Ignored("identify")) == {}
    assert counted("capistream_ignored_total", kind="identify") == 1


def test_everything_is_counted(counted):
    collected(
        Normalized(make_event(), (("user.phone", "not_a_phone"), ("context.ip", "private"))),
        Normalized(make_event(event_name="login", source="pixel")),
        Refused("not_json", "", "not JSON, at character 5"),
    )

    assert counted("capistream_copies_total", event="purchase", source="server") == 1
    assert counted("capistream_copies_total", event="login", source="pixel") == 1
    assert counted("capistream_refused_total", reason="not_json") == 1
    assert counted("capistream_fields_dropped_total", field="user.phone", reason="not_a_phone") == 1
    assert counted("capistream_fields_dropped_total", field="context.ip", reason="private") == 1


def test_custom_names_share_one_series(counted):
    collected(*(Normalized(make_event(event_name=f"mine_{i}")) for i in range(5)))

    assert counted("capistream_copies_total", event="custom", source="server") == 5
    assert count("capistream_copies_total", event="mine_0", source="server") == 0


@pytest.mark.parametrize("name", CANONICAL_NAMES)
def test_a_canonical_name_is_its_own_label(name):
    assert intake.label(name) == name


def test_a_refusal_is_logged_without_anything_of_the_event():
    body = orjson.dumps({"event_name": "login", "event_id": "ada@example.com"})

    with structlog.testing.capture_logs() as logs:
        collected(*normalize_bytes(body, Inlet("t", "capistream", "shop", "server"), NOW, ORIGIN))

    assert logs == [
        {
            "event": "event.refused",
            "log_level": "warning",
            "stage": "normalize",
            "reason": "personal_id",
            "field": "event_id",
            "origin": ORIGIN,
        }
    ]


PLACES = st.tuples(st.sampled_from(["t.events", "t.dead"]), st.integers(0, 2))
ROWS = st.dictionaries(
    PLACES, st.lists(st.tuples(st.none(), st.binary(max_size=3), st.just(NOW)), min_size=1, max_size=3)
)


@given(st.lists(ROWS, max_size=4), st.sets(PLACES))
def test_of_rows_that_are_written_together_each_batch_learns_where_its_own_are(several, refused):
    log = intake.joined(several)
    places = {place: range(len(rows)) for place, rows in log.items() if place not in refused}

    for some, its in zip(several, intake.of_each(places, several), strict=True):
        assert its.keys() == some.keys() - refused
        assert {place: [log[place][offset] for offset in its[place]] for place in its} == {p: some[p] for p in its}
