"""app/doctor/finding.py: how findings are told."""

from app.doctor.finding import Report, listed, ok, problem, together, warning

REPORT = Report(
    [
        ("Kafka", [ok("version", "4.0"), problem("broker 1", "does not answer", "start it", "docs/runbook.md#x")]),
        ("Clocks", [warning("our clock", "2.5 s behind", "timedatectl")]),
    ]
)


def test_people_get_a_line_for_each_finding_and_below_it_what_to_do():
    assert [line for line, _ in REPORT.for_people()] == [
        "Kafka",
        "  ok       version: 4.0",
        "  problem  broker 1: does not answer",
        "           start it",
        "           see docs/runbook.md#x",
        "",
        "Clocks",
        "  warning  our clock: 2.5 s behind",
        "           timedatectl",
        "",
        "1 problem, 1 warning",
    ]


def test_programs_get_one_object():
    said = REPORT.as_json()

    assert (said["problems"], said["warnings"], len(said["findings"])) == (1, 1, 3)
    assert said["findings"][1] == {
        "area": "Kafka",
        "state": "problem",
        "what": "broker 1",
        "detail": "does not answer",
        "remedy": "start it",
        "see": "docs/runbook.md#x",
    }


def test_nothing_that_a_terminal_would_obey_is_told_to_people():
    (_, line, *_) = Report([("Topics", [ok("other topics", "a\x1b[31mb")])]).for_people()

    assert "\x1b" not in line[0]


def test_what_is_the_same_for_several_is_told_once_with_their_names():
    (both, alone) = together(
        "topic",
        [
            ("a", problem("", "too short", "alter NAME")),
            ("b", problem("", "too short", "alter NAME")),
            ("c", ok("", "fine")),
        ],
    )

    assert (both.what, both.detail, both.remedy) == ("2 topics", "too short (a, b)", "alter NAME")
    assert alone.what == "topic c"


def test_of_a_single_one_the_remedy_has_its_name():
    (one,) = together("topic", [("a", problem("", "too short", "alter NAME"))])

    assert (one.what, one.remedy) == ("topic a", "alter a")


def test_of_many_names_the_first_are_told_and_how_many_more_there_are():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdef")) == "a, b, c, d and 2 more"
