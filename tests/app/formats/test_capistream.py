"""app/formats/capistream.py: bodies to single events."""

import orjson
import pytest

from app import formats
from app.errors import BadEvent
from app.formats import _table, capistream

EVENT = {"event_name": "login", "event_id": "ev-1"}


def split(body):
    return formats.split("capistream", body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (EVENT, [EVENT]),
        ([EVENT, EVENT], [EVENT, EVENT]),
        ([], []),
        ({"batch": [EVENT, EVENT]}, [EVENT, EVENT]),
        ({"batch": []}, []),
        ({"batch": [EVENT, 5, None, "x"]}, [EVENT, 5, None, "x"]),
        # what the body says once is true for all, unless one says otherwise
        (
            {"batch": [EVENT, {**EVENT, "sent_at": 2}], "sent_at": 1},
            [{**EVENT, "sent_at": 1}, {**EVENT, "sent_at": 2}],
        ),
        ({"batch": {}}, [{"batch": {}}]),
        (None, [None]),
        ("x", ["x"]),
        (5, [5]),
    ],
)
def test_a_body_is_one_event_a_list_or_a_batch(body, expected):
    assert split(body) == expected


def test_a_draft_is_a_copy_of_the_event_as_it_is():
    draft = capistream.draft(EVENT)

    assert draft == EVENT
    assert draft is not EVENT


@pytest.mark.parametrize("format_name", ["capistream", "segment", "meta"])
@pytest.mark.parametrize("one", [None, 5, "x", True, [], 1.5])
def test_an_event_that_is_no_object_is_of_the_wrong_type(format_name, one):
    with pytest.raises(BadEvent) as refused:
        formats.draft(format_name, one)
    assert (refused.value.reason, refused.value.field) == ("wrong_type", "")


@pytest.mark.parametrize(
    ("format_name", "body"),
    [
        ("capistream", {"batch": [{}] * 1000, "custom": {"x": "y" * 20_000}}),
        ("segment", {"batch": [{}] * 1000, "context": {"x": "y" * 20_000}}),
        ("ga4", {"events": [{}] * 1000, "client_id": "y" * 20_000}),
    ],
)
def test_a_body_cannot_be_made_to_say_one_large_thing_a_thousand_times(format_name, body):
    assert len(orjson.dumps(body)) < 30_000
    with pytest.raises(BadEvent) as refused:
        formats.split(format_name, body)
    assert (refused.value.reason, refused.value.field) == ("too_large", "")


def test_what_is_said_once_may_be_nested_too_deeply():
    deep: object = 1
    for _ in range(400):
        deep = [deep]

    with pytest.raises(BadEvent) as refused:
        split({"batch": [EVENT], "custom": {"x": deep}})
    assert refused.value.reason == "too_deep"


# the tables' own language


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a", {"b": {"c": 1}}), ("a.b.c", 1), ("a.b.c.d", None), ("x", None), ("a.x", None), ("l.0", None)],
)
def test_a_dotted_place_finds_its_value_or_none(path, expected):
    assert _table.at({"a": {"b": {"c": 1}}, "l": [1]}, path) == expected


def test_the_first_place_that_has_a_value_wins():
    table = (("a", "x.y"), ("b", "x.y"), ("c", "x.z"), ("d", "w"))
    draft: dict[str, object] = {}

    _table.Reader(table).apply({"a": "", "b": 0, "c": None, "d": False}, draft)

    assert draft == {"x": {"y": 0}, "w": False}


def test_a_place_in_something_else_than_an_object_has_no_value():
    draft: dict[str, object] = {}

    _table.Reader((("a.b", "x"), ("c.d.e", "y"), ("f.g", "z"))).apply({"a": [1], "c": {"d": "e"}, "f": {"g": 1}}, draft)

    assert draft == {"z": 1}


@pytest.mark.parametrize("value", [None, {}, "x", 5, [1], [None], [{}, "x"]])
def test_products_must_be_a_list_of_objects(value):
    with pytest.raises(BadEvent) as refused:
        _table.items(value, _table.Reader((("id", "item_id"),)), "products")
    assert (refused.value.reason, refused.value.field) == ("wrong_type", "products")


@pytest.mark.parametrize("value", ["ev-1", 1, 10.5, "00"])
def test_a_text_or_number_can_be_an_id(value):
    assert _table.an_id(value)


@pytest.mark.parametrize(
    "value",
    [None, "", " ", "undefined", "NULL", "None", "NaN", "0", 0, False, True, "true", "[object Object]", [], {}, ["x"]],
)
def test_what_broken_clients_send_is_no_id(value):
    assert not _table.an_id(value)


@pytest.mark.parametrize("value", [2**70, b"x", {1: 2}])
def test_what_json_cannot_say_is_not_called_too_deep(value):
    with pytest.raises(BadEvent) as refused:
        formats.as_json({"x": value})

    assert refused.value.reason == "not_json"
