"""A shop's list of orders, as different shops export it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import orders
from app.errors import CapistreamError

BERLIN = "Europe/Berlin"


def read(text: str | bytes, zone: str = BERLIN, **columns: str) -> orders.Orders:
    return orders.read(text if isinstance(text, bytes) else text.encode(), columns, zone)


@pytest.mark.parametrize(
    "text",
    [
        b"order_id,created_at,total,currency\n1001,2026-11-23T22:30:00Z,1234.50,EUR\n",
        b"\xef\xbb\xbforder_id;created_at;total;currency\r\n1001;2026-11-23 23:30;1.234,50;EUR\r\n",
        "order_id;created_at;total;currency\n1001;23.11.2026 23:30;1.234,50 €;EUR\n".encode(),
        "order_id\tcreated_at\ttotal\tcurrency\n1001\t2026-11-23 23:30\t1,234.50\tEUR\n".encode("utf-16"),
        "Bezahlt für;order_id;created_at;total;currency\nJürgen;1001;23.11.2026, 23:30;1234,50;eur\n".encode("cp1252"),
        b'sep=;\norder_id;created_at;total;currency\n"1001";"2026-11-23 23:30:00 +0100";"1\'234.50";"EUR"\n',
        b"increment_id|order_date|grand_total|currency\n1001|2026-11-23 22:30:00 UTC|EUR 1234.50|EUR\n",
    ],
    ids=["iso", "excel", "german", "unicode text", "windows-1252", "sep", "pipes"],
)
def test_every_dialect_says_the_same(text):
    found = read(text)

    (one,) = found.orders.values()
    assert (one.id, one.time, one.day) == ("1001", 1_795_473_000_000, "2026-11-23")
    assert (one.value, one.currency, found.unread) == (1234.5, "EUR", [])


def test_the_day_is_that_of_the_zone():
    text = "order,time\n1,2026-11-23T23:30:00Z\n"

    assert [one.day for one in read(text).orders.values()] == ["2026-11-24"]
    assert [one.day for one in read(text, "UTC").orders.values()] == ["2026-11-23"]


def test_rows_that_cannot_be_used_are_named_by_their_line_and_no_value_is_told():
    found = read(
        "order,date,total,currency,email\n"
        "1,2026-11-23,5,EUR,a@example.com\n"
        "2,11/23/2026,5,EUR,b@example.com\n"
        "3,2026-11-23,five,EUR,\n"
        ",2026-11-23,5,EUR,\n"
        "1.23E+11,2026-11-23,5,EUR,\n"
        "6,2026-11-23,5,euros,\n"
        "\n"
        "7,9999-12-31T23:59:59-12:00,5,EUR,\n"
    )

    assert list(found.orders) == ["1"]
    assert found.complaints() == [
        "line 3: date is neither ISO 8601 nor a number",
        "line 4: total is no number",
        "line 5: order names no order",
        "line 6: order was cut by a spreadsheet: give that column the format text",
        "line 7: currency is not three letters (ISO 4217)",
        "line 9: date is no time that we can read",
    ]


def test_further_rows_of_an_order_are_its_items():
    found = read("order,total\n1,\n1,5\n1,5\n1,7\n2,9\n")

    assert [(one.id, one.value) for one in found.orders.values()] == [("1", 5.0), ("2", 9.0)]
    assert found.repeated == 3
    assert found.complaints() == ["line 5: order is that of the order in line 2, with another amount: the first counts"]


def test_what_was_paid_back_is_no_order():
    found = read("order,total\n1,5\n1,-5\n2,−3\n")

    assert list(found.orders) == ["1"]
    assert found.refunds == {"1": 3, "2": 4}


def test_too_many_complaints_are_counted_and_too_many_orders_refused(monkeypatch):
    monkeypatch.setattr(orders, "MOST_UNREAD", 2)
    monkeypatch.setattr(orders, "MOST", 3)
    text = "order,total\n" + "".join(f"{n},x\n" for n in range(5))

    assert read(text).complaints()[-1] == "3 more rows like these"
    with pytest.raises(CapistreamError, match="more than 3 orders"):
        read("order\n1\n2\n3\n4\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("when,total\n1,2\n", "names no column that looks like an order number"),
        ("event_id,total\n1,2\n", "names no column with order numbers"),
        ("", "names no column"),
        ('order\n"' + "x" * 200_000, "is no CSV"),
    ],
)
def test_what_is_no_list_is_refused(text, said):
    with pytest.raises(CapistreamError, match=said):
        read(text)


@given(st.binary(max_size=300))
def test_whatever_is_in_a_file_becomes_orders_or_a_reason(text):
    try:
        found = orders.read(b"order,time,total,currency\n" + text, {}, BERLIN)
    except CapistreamError:
        return
    assert all(id_ == one.id and id_ for id_, one in found.orders.items())
