"""app/mapping.py: what `value` and `map` make of an event."""

import copy

import pytest

from app.mapping import mapped, valued
from tests.factories import make_event


@pytest.mark.parametrize(
    ("how", "value"),
    [
        ("gross", 59.98),
        ("net", 50.48),
        ("items", 59.98),
        ("commerce.tax", 4.5),
        ("custom.margin", 12.5),
        ("commerce.transaction_id", 1001.0),
        ("custom.nothing", None),
        ("commerce.coupon", None),
        ("commerce.items", None),
        ("length(commerce.items)", 1.0),
    ],
)
def test_the_value_to_report(how, value):
    event = make_event(custom={"margin": 12.5})

    assert valued(event, how)["commerce"].get("value") == value


def test_decimals_do_not_become_binary_dust():
    event = make_event(commerce={"value": 0.3, "tax": 0.1, "shipping": 0.1})

    assert valued(event, "net")["commerce"]["value"] == 0.1


@pytest.mark.parametrize(
    ("commerce", "how"),
    [
        ({"value": None}, "net"),
        ({"items": None}, "items"),
        ({"items": [{"item_id": "a"}]}, "items"),
        ({"items": [{"item_id": "a", "price": 5.0}, {"item_id": "b"}]}, "items"),
    ],
)
def test_a_value_that_would_be_half_right_is_none(commerce, how):
    assert "value" not in valued(make_event(commerce=commerce), how)["commerce"]


def test_without_tax_and_shipping_net_is_gross():
    event = make_event(commerce={"tax": None, "shipping": None})

    assert valued(event, "net")["commerce"]["value"] == 59.98


def test_the_event_itself_is_left_as_it_was():
    event = make_event()
    before = copy.deepcopy(event)

    valued(event, "net")
    mapped({}, event, {"a": "commerce"})

    assert event == before


BODY = {"custom_data": {"value": 1, "contents": [{"id": "a"}, {"id": "b"}]}}
ITEMS = {"items": [{"item_id": "a", "variant": "v1"}, {"item_id": "b", "variant": "v2"}]}


@pytest.mark.parametrize(
    ("fields", "custom_data"),
    [
        ({}, BODY["custom_data"]),
        ({"custom_data.value": "commerce.tax"}, BODY["custom_data"] | {"value": 4.5}),
        ({"custom_data.nothing": "custom.nothing"}, BODY["custom_data"]),
        ({"custom_data.value": "''"}, BODY["custom_data"]),
        ({"custom_data.contents": "commerce.items[?item_id=='x'].item_id"}, BODY["custom_data"]),
        ({"custom_data.a.b": "event_name"}, BODY["custom_data"] | {"a": {"b": "purchase"}}),
        ({"custom_data.ids": "commerce.items[].variant"}, BODY["custom_data"] | {"ids": ["v1", "v2"]}),
        ({"custom_data.ids[]": "event_name"}, BODY["custom_data"] | {"ids": ["purchase"]}),
        (
            {"custom_data.contents[].id": "commerce.items[].variant"},
            BODY["custom_data"] | {"contents": [{"id": "v1"}, {"id": "v2"}]},
        ),
        (
            {"custom_data.contents[].id": "commerce.items[?item_id=='a'].variant"},
            BODY["custom_data"] | {"contents": [{"id": "v1"}, {"id": "b"}]},
        ),
        ({"custom_data.contents[].id": "event_name"}, BODY["custom_data"]),
        ({"custom_data.value.inner": "event_name"}, BODY["custom_data"]),
    ],
)
def test_fields_are_put_where_the_path_says(fields, custom_data):
    assert mapped(BODY, make_event(commerce=ITEMS), fields) == {"custom_data": custom_data}


def test_the_body_of_the_sink_is_left_as_it_was():
    before = copy.deepcopy(BODY)

    mapped(BODY, make_event(), {"custom_data.value": "commerce.tax", "custom_data.contents[].id": "[`1`, `2`]"})

    assert before == BODY


def test_filling_the_members_of_a_list_that_was_mapped_whole_leaves_the_event_alone():
    event = make_event(commerce={"items": [{"item_id": "SKU-1", "variant": "red"}]})
    before = copy.deepcopy(event)

    body = mapped({}, event, {"contents": "commerce.items", "contents[].item_id": "commerce.items[].variant"})

    assert body == {"contents": [{"item_id": "red", "variant": "red"}]}
    assert event == before
