"""app/redaction.py: what is found in free text, what is left alone, and how much of a page's address is kept."""

import base64
import time
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app import identity, redaction
from app.identity import REDACTED
from app.redaction import in_an_id, masked, named, of_a_person, of_an_id, page

EMAIL = "ada.lovelace+shop@example.com"
BASE64 = base64.b64encode(EMAIL.encode()).decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # e-mail: the rest is in test_identity.py
        (f"thanks {EMAIL}!", "thanks [redacted]!"),
        ("ada&#64;example.com", "[redacted]"),
        ("ada&commat;example.com, ada&#x40;example.com", "[redacted], [redacted]"),
        ('{"a":"ada\\u0040example.com"}', '{"a":"[redacted]"}'),
        ("ada\ufe6bexample.com ada@example\u3002com ada%EF%BC%A0example.com", "[redacted] [redacted] [redacted]"),
        ("ada@xn--mller-kva.example", "[redacted]"),
        ("a@b.example;c=ada@example.com", "[redacted];c=[redacted]"),
        (f"?e={BASE64}&x=1", "?e=[redacted]&x=1"),
        (f"/u/{BASE64.rstrip('=')}/orders", "/u/[redacted]/orders"),
        ("t=" + base64.urlsafe_b64encode(b'{"mail":"ada@example.com","n":"\xc3\xbf"}').decode(), "t=[redacted]"),
        ("t=" + base64.b64encode(base64.b64encode(b"ada@example.com")).decode(), "t=[redacted]"),  # twice
        ("t=" + base64.b64encode(b'{\n  "mail": "ada@example.com"\n}').decode(), "t=[redacted]"),
        ("t=" + base64.b64encode(b"call +49 30 123456").decode(), "t=[redacted]"),
        ('"ada lovelace"@example.com', "[redacted]"),
        # phone, with a country
        ("call +49 30 123456 now", "call [redacted] now"),
        ("order +4930123456 x", "order [redacted] x"),
        ("tel:+44-7700-900123", "tel:[redacted]"),
        ("call +683 4000", "call [redacted]"),  # no country has shorter ones
        ("0033 6 12 34 56 78", "[redacted]"),
        ("?q=%2B49%2030%20123456&y", "?q=[redacted]&y"),
        ("?q=+1+650+555+1212", "?q=[redacted]"),
        ("?next=%3Fq%3D%2B4930123456", "?next=%3Fq%3D[redacted]"),
        ("＋４９３０１２３４５６", "[redacted]"),
        # phone, as people of some countries group it
        ("(030) 1234-5678, mornings", "[redacted], mornings"),
        ("030/1234567 or 0171 1234567", "[redacted] or [redacted]"),
        ("06 12 34 56 78", "[redacted]"),
        ("01.23.45.67.89", "[redacted]"),
        ("07700 900123", "[redacted]"),
        ("(11) 91234-5678", "[redacted]"),
        ("650-555-1212, 1 (650) 555 1212", "[redacted], [redacted]"),
        ("?q=0171%201234567", "?q=[redacted]"),
        ("a,0171 1234567,b", "a,[redacted],b"),
        ("phone:0049 171 1234567;Tel.0171/1234567", "phone:[redacted];Tel.[redacted]"),
        # cards, accounts, social security
        ("4111 1111 1111 1111", "[redacted]"),
        ("card 5500-0000-0000-0004.", "card [redacted]."),
        ("378282246310005", "[redacted]"),
        ("DE89 3704 0044 0532 0130 00 thanks", "[redacted] thanks"),
        ("GB29NWBK60161331926819", "[redacted]"),
        ("?q=DE89+3704+0044+0532+0130+00", "?q=[redacted]"),
        # what shows only when it is decoded
        ("?q=%25280151%2529%25201234-5678&x=%2525", "?q=[redacted]&x=%2525"),
        ("?q=%2544%2545%2538%2539370400440532013000", "?q=[redacted]"),
        ("ssn 123-45-6789", "ssn [redacted]"),
        # by the name of a parameter, or of a member of JSON
        ("/thanks?first_name=Ada&plan=gold", "/thanks?first_name=[redacted]&plan=gold"),
        ("/thanks;name=shirt;lastName=Lovelace#phone=030123456", "/thanks;name=shirt;lastName=[redacted]#phone=[redacted]"),
        ("?next=%2Fa%3FfirstName%3DAda%26b%3D1", "?next=%2Fa%3FfirstName%3D[redacted]%26b%3D1"),
        ("first_name=Ada", "first_name=[redacted]"),
        ('{"first_name": "Ada \\"A\\"", "plan":"gold"}', '{"first_name": "[redacted]", "plan":"gold"}'),
    ],
)  # fmt: skip
def test_what_is_personal_is_masked(text, expected):
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "Shirt, red", "SKU-1", "50% off", "1 + 1 = 2", "order 4930123456", "1234567890.1699999999",
        "004930.1699999999", "GA1.1.004930.1699999999", "?cid=004930.1699999999&x=1",
        "fb.1.1795420000000.1234567890",
        "2026-11-23T10:00:00+01:00", "01.02.2026 12:30", "01.02.2026 - 10.02.2026", "01/02/2026 10", "0.123456789", "59.98",
        "0012345678", "00123456789012", "?q=jeans+20240101", "10 20 30 40 50", "size 38/40 41/42 43/44", "192.168.178.21",
        "6f1c2a9e-1111-4222-8333-444455556666", "01234567-8901-2345-6789-012345678901", "4006381333931", "4111111111111112",
        "1795420000000000", "DE00370400440532013000", "AB12CDEF3456GHIJ78", "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0.7339.207",
        "/c/women/shoes?utm_source=newsletter&utm_medium=email&gclid=Cj0KCQ-x_y&product_name=Shirt&email_type=html&name=Ada",
        "fbclid=IwAR0abcdefghijklmnopqrstuvwxyz0123456789-_", "CQfDEkAQfDEkAAfKABENCOFgAIIAAAAAAAYgIzQAgF5gRmAAAAAA",
        "at 10:0123 45678", "1.0171 1234567", "size:200,300", "order-0171 1234567", "c29tZSB0ZXh0IG9mIG5vYm9keQ==",
        '{"name":"Shirt","email":true}', "?email=true&phone=1&address=yes", "ada@home", "V1.2.3 (build 20261123)",
    ],
)  # fmt: skip
def test_what_is_not_is_left_alone(text):
    assert masked(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada@example.com", "[redacted]"),
        ("SKU-1 ada@example.com", "SKU-1 [redacted]"),
        (BASE64, "[redacted]"),
        ("tel:+49 30 123456", "tel:[redacted]"),
        ("0033 6 12 34 56 78", "[redacted]"),
        ("0049.1701234567", "[redacted]"),
        ("004930.1699999999", "004930.1699999999"),  # a client id of GA's
        # an order's or a product's number may look so
        *(
            (one, one)
            for one in ("0171 1234567", "650-555-1212", "0033612345678", "4111111111111111", "fb.1.1795420000000.12")
        ),
        *(
            (one, one)  # Pinterest's click ids are a text in base64
            for one in ("dj0yJnU9b2JDcFFHekV4SHJNcmVrbFBkUEdqakh0akdUT1VjVVUmcD0yJm49cnNBQ3F2Q2dOVDBX",)
        ),
    ],
)
def test_an_id_is_searched_for_what_cannot_be_one(text, expected):
    assert of_an_id(text) == expected
    assert in_an_id(text) == (text != expected)


@pytest.mark.parametrize(
    "written", ["+4930123456", "0049 (30) 123456", "030/123456", "(030) 123456", "+49 30 123456", "tel:+49-30-123456"]
)
def test_a_persons_id_that_is_a_phone_number_is_one_hash_however_it_is_written(written):
    assert of_a_person(written, "DE") == identity.sha256("+4930123456")


@pytest.mark.parametrize(
    "text", ["customer-7", "12345678", "a3f0c2d4", "0012345678", "4111111111111111", "004930123456"]
)
def test_any_other_id_of_a_person_is_kept(text):
    assert of_a_person(text, "DE") == text


@given(
    local=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,12}(\+[a-z0-9]{1,5})?", fullmatch=True),
    before=st.sampled_from(("", "?e=", "/u/", "#", ";m=", "a, ", "[", "%3D", "&x=1&e=")),
    after=st.sampled_from(("", "&x=1", "/x", "#top", ";x", ", b", "]", "%26x")),
    written=st.sampled_from(
        (
            str,
            quote,
            lambda text: quote(quote(text, safe=""), safe=""),
            lambda text: base64.b64encode(text.encode()).decode(),
            lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
            lambda text: text.replace("@", "&#64;"),
        )
    ),
)
def test_an_email_is_found_in_every_spelling_and_place(local, before, after, written):
    text = written(f"{local}@mail.example")

    assert text not in masked(before + text + after)


@given(st.text("ab@%40256.+'- é=&?/\"():1", max_size=40))
def test_masking_twice_is_masking_once(text):
    assert masked(masked(text)) == masked(text)


PARTS = st.one_of(
    st.sampled_from((
        *(EMAIL, BASE64, "a@b.de", "ada&#64;example.com", "ada\\u0040example.com", "%40", "&commat;", "+49 30 123456"),
        *("0049171123456", "(030) 12345678", "030/1234567", "650-555-1212", "123-45-6789", "4111111111111111", "00491711234567"),
        *("DE89370400440532013000", "name=", "first_name=Ada", "phone", '"lastName":"Lovelace"', "YWRhQGV4YW1wbGUuY29t"),
        *("/", "\n", " ", "-", "Shirt"),
    )),
    st.text('aZ0019 .-+/()%&="@:\\u\u017f\n', max_size=14),
    st.from_regex(redaction._NUMBER, fullmatch=True),
)  # fmt: skip
TEXTS = st.lists(st.lists(PARTS, max_size=3).map("".join), max_size=4)


@settings(max_examples=150)
@given(TEXTS, TEXTS)
def test_one_look_for_all_of_an_event_finds_what_a_look_at_each_does(texts, ids):
    if redaction.clean(texts, ids):
        assert [masked(text) for text in texts] == texts
        assert [of_an_id(text) for text in ids] == ids
        assert not any(map(in_an_id, ids))


@settings(max_examples=300)
@given(
    st.sampled_from(("https://shop.example.com", "https://ada@shop.example", "HTTPS://YWRhQGV4YW1wbGUuY29t", "")),
    st.lists(PARTS | st.sampled_from(("?", "#", "&", "/", "utm_source=", "p/58380011")), max_size=6).map("".join),
)
def test_an_address_that_the_one_look_passes_is_left_as_it_is(origin, rest):
    url = origin + rest
    seen = redaction.plain_page(url)
    if seen is not None and redaction.clean([], [], [seen]):
        assert redaction.page(url, "full", "mask") == redaction.page(url, "full", "drop") == url


def test_most_addresses_are_passed_by_the_one_look():
    for url in (
        "https://shop.example.com/p/58380011?utm_source=news&gclid=Cj0K-x_y#top",
        "/p/1",
        "https://shop.example",
    ):
        assert redaction.clean([], [], [redaction.plain_page(url) or "@"])


@settings(max_examples=150)
@given(st.lists(PARTS, max_size=5).map("".join).filter(lambda text: "%" not in text))
def test_no_token_and_no_parameter_is_passed_over_by_the_quick_look_before(text):
    assert redaction._may_hide(text) or redaction._TOKEN.sub(redaction._without_token, text) == text
    names = redaction._NAME.findall(f"?{text}")
    assert any(map(redaction._called, names)) or redaction._PARAMETER.sub(redaction._without_value, text) == text


@pytest.mark.parametrize("part", [("4111 1111 1111 1111",), ("AB",), ("a b", "c")])
def test_one_look_sees_each_text_by_itself(part):
    assert redaction.clean(["1", *part, "2"]) == (masked(part[0]) == part[0])


@pytest.mark.parametrize(
    "text",
    [
        *(
            "ada@example.com",
            "ada\uff20example.com",
            "ada\ufe6bexample.com",
            "ada%40example.com",
            "ada&#64;example.com",
        ),
        *("ada&commat;example.com", "ada\\u0040example.com", "+4930123456", "\uff0b4930123456", "(030) 12345678"),
        *("0049.1701234567", "YWRhQGV4YW1wbGUuY29t"),
    ],
)
def test_one_look_is_not_enough_where_something_personal_is_in_an_id(text):
    assert in_an_id(text)
    assert not redaction.clean([], ["1", text, "2"])
    assert not redaction.clean(["1", text, "2"])


@pytest.mark.parametrize("text", ["first_name=Ada", '{"first_name": "Ada"}', "0171 1234567", "DE89370400440532013000"])
def test_one_look_is_not_enough_where_something_personal_is_in_a_text(text):
    assert masked(text) != text
    assert not redaction.clean(["1", text, "2"])


def test_one_look_is_enough_for_what_a_shop_says():
    texts = ["Thank you", "Tom & Jerry, 50% off (blue)", '24" screen', "SKU-1", "20261123-0001", "de-DE", "Größe 38"]
    ids = [
        "6f1c2a9e-1111-4222-8333-444455556666",
        "fb.1.1795420000000.1234567890",
        "purchase-12345678",
        "2J3K-12345678",
    ]

    assert redaction.clean(texts, ids)


@given(
    st.one_of(st.text("0012345 .-()/+%2b\u00a0\uff0bx,:", min_size=8, max_size=40), st.from_regex(redaction._NUMBER))
)
def test_no_number_is_passed_over_by_the_quick_look_before(text):
    for found in redaction._NUMBER.finditer(text):
        assert redaction._MAY_BE_WITH_COUNTRY.search(text) or not redaction._with_country(found)


@given(st.one_of(st.text(max_size=60), st.text("aZ1/\u017f\u0131\u0130\u212a", min_size=12, max_size=20)))
@example("\u017f" * 12)  # a letter of ASCII, where case is ignored
def test_masking_any_text_answers(text):
    assert isinstance(masked(text), str)
    assert isinstance(redaction.of_an_id(text), str)


def test_many_layers_of_encoding_end():
    text = "ada@example.com"
    for _ in range(3):
        text = base64.b64encode(text.encode()).decode()
        assert masked(text) == REDACTED
    for _ in range(11):
        text = base64.b64encode(text.encode()).decode()
    begin = time.process_time()
    assert masked(text) == text
    assert time.process_time() - begin < 0.5
    assert masked("%25" * 1000 + "40") == "%25" * 1000 + "40"
    assert masked("%" + "25" * 2000 + "28x") == "%" + "25" * 2000 + "28x"


HOSTILE = (
    "a", "@", "a@", "a@b.", "%", "%2", "%25", "%40", "%20", "+1 ", "+", "(", "(12)", " ", "-", "1", "0", "0 ", "00", "41 ", "?a",
    "&a=", "=", '"ab":', '"ab":"', '"', "\\", "AA00", "A0 ", "/", "a/", "%3fab%3d", "1-", "(0", "+1", "é", "aaaaaaaaaaaa/",
    "AAAA ", "DE89 3704 ", '"@', '"a"@', "aHg/", "Pz8/Pz8/Pz8/", ",0171", "phone:0",
)  # fmt: skip


@pytest.mark.parametrize("frame", ["{}", "@{}", "{}@", "?ab={}", '"ab":"{}', "0{}", "+1{}", "DE89{}"])
def test_hostile_text_takes_no_longer_than_its_length(frame):
    for pattern in HOSTILE:
        text = frame.format(pattern * (10_000 // len(pattern)))
        begin = time.process_time()

        masked(text)
        page(text, "full", "drop")
        of_an_id(text)

        assert time.process_time() - begin < 0.5, pattern


# by the name of a field


@pytest.mark.parametrize(
    "name",
    [
        "email", "customerEmail", "e-mail", "E_MAIL", "emails", "email_address", "email2", "hashed_email", "billing.email",
        "first_name", "firstName", "FirstName", "firstname", "name_first", "full_name", "customer.name", "recipientName", "Vorname",
        "address", "address1", "address_line_2", "addresses", "shippingAddress", "street_number", "Straße", "birthday",
        "dateOfBirth", "birth_date", "dob", "IBAN", "cardNumber", "credit_card", "cvc", "ssn", "passport_no",
        "password", "access_token", "client_ip", "ip_address", "user[email]",
    ],
)  # fmt: skip
def test_a_field_that_is_called_like_a_persons_data_holds_some(name):
    assert named(name, "something")


@pytest.mark.parametrize(
    "name",
    [
        "name", "product_name", "campaign_name", "list_name", "email_type", "email_opt_in", "phone_model", "card_type",
        "customer_id", "user", "number", "house", "business", "press", "class", "wallet", "session_id", "coupon", "gender", "tipo",
        "mobile_app", "zip", "vip", "blueprint", "", "42", "birthstone", "emailing",
    ],
)  # fmt: skip
def test_a_field_that_is_called_otherwise_holds_none(name):
    assert not named(name, "something 123456")


@pytest.mark.parametrize("name", ["phone", "mobile", "telephone2", "phoneNumber", "Handynummer", "whatsapp"])
@pytest.mark.parametrize(
    ("value", "found"),
    [("030123456", True), (30123456, True), ("iPhone 15", False), ("yes", False), (3, False), ("", False)],
)
def test_a_phone_number_has_digits(name, value, found):
    assert named(name, value) is found


@pytest.mark.parametrize("value", [True, False, None, 0, 27, 1.5, "", " ", "true", "No", "null", "0" * 64, REDACTED])
def test_a_flag_a_small_number_and_a_hash_are_nobodys_data(value):
    assert not named("email", value)


# addresses of pages

PAGE = "https://shop.example:8443/a/b?gclid=Cj0&email=ada@example.com&utm_source=news&UTM_term=030%2F1234567#top"


@pytest.mark.parametrize(
    ("url", "kept", "how", "expected"),
    [
        (PAGE, "full", "mask", "https://shop.example:8443/a/b?gclid=Cj0&email=[redacted]&utm_source=news&UTM_term=[redacted]#top"),
        (PAGE, "full", "drop", "https://shop.example:8443/a/b?gclid=Cj0&utm_source=news#top"),
        (PAGE, "path", "mask", "https://shop.example:8443/a/b?utm_source=news&UTM_term=[redacted]"),
        (PAGE, "path", "drop", "https://shop.example:8443/a/b?utm_source=news"),
        (PAGE, "origin", "mask", "https://shop.example:8443/?utm_source=news&UTM_term=[redacted]"),
        ("https://shop.example", "full", "mask", "https://shop.example"),
        ("https://shop.example", "path", "mask", "https://shop.example"),
        ("https://shop.example", "origin", "mask", "https://shop.example/"),
        ("https://ada:secret@shop.example/a", "full", "mask", "https://shop.example/a"),
        ("https://ada%40example.com:secret@shop.example/a", "full", "mask", "https://shop.example/a"),
        ("https://ada@shop.example/a", "full", "mask", "https://[redacted]/a"),
        ("https://ada@shop.example/a", "full", "drop", ""),
        ("https://shop.example/u/ada@example.com/x?b=1", "full", "mask", "https://shop.example/u/[redacted]/x?b=1"),
        ("https://shop.example/u/ada@example.com/x?b=1", "full", "drop", "https://shop.example/?b=1"),
        ("https://shop.example/a#phone=030123456", "full", "drop", "https://shop.example/a"),
        ("https://shop.example/a;email=ada@example.com;v=1", "full", "mask", "https://shop.example/a;email=[redacted];v=1"),
        ("/a?b=1#c", "full", "mask", "/a?b=1#c"),
        ("/a?b=1#c", "path", "mask", "/a"),
        ("/a?b=1#c", "origin", "mask", ""),
        ("android-app://com.example", "full", "mask", "android-app://com.example"),
        ("ada@example.com", "full", "mask", "[redacted]"),
        ("ada@example.com", "full", "drop", ""),
        ("mailto:ada@example.com", "full", "mask", "mailto:[redacted]"),
    ],
)  # fmt: skip
def test_as_much_of_an_address_is_kept_as_the_settings_say(url, kept, how, expected):
    assert page(url, kept, how) == expected


@given(st.text("ab:/?#@.=&%", max_size=30), st.sampled_from(("path", "origin")), st.sampled_from(("mask", "drop")))
def test_without_its_query_an_address_has_none_and_no_fragment(url, kept, how):
    found = page(url, kept, how)

    assert "#" not in found
    assert "?" not in found  # utm_ cannot be written with these letters


def test_long_texts_take_no_place_in_a_cache():
    size = redaction._masked.cache_info().currsize

    masked("x@y " * 200)

    assert redaction._masked.cache_info().currsize == size


def test_a_long_origin_takes_no_place_in_a_cache():
    size = redaction._plain_origin.cache_info().currsize

    assert redaction.plain_page(f"https://{'a' * 1000}.example/") is None
    assert redaction._plain_origin.cache_info().currsize == size
