"""app/doctor/access.py: what is judged of our rights. What Kafka says of them: tests/app/test_acls.py."""

from app.acls import PLACEHOLDER, Acl
from app.doctor import access
from tests.app.doctor.facts import only, states

READ = Acl("topic", "shop.orders", False, ("Read",))
WRITE = Acl("topic", "capistream.people", False, ("Write",))


def test_who_may_do_everything_is_fine():
    (found,) = access.judge("User:capistream", {"worker": [], "collector": []})

    assert (found.state, found.detail) == ("ok", "User:capistream may do what a worker and a collector does")


def test_who_may_do_the_work_of_one_of_the_two_may_be_meant_for_that():
    found = only(access.judge("User:capistream", {"worker": [], "collector": [WRITE]}))

    assert found.state == "warning"
    assert "Write on topic capistream.people" in found.detail
    assert "--role collector" in found.remedy


def test_who_may_do_neither_is_a_problem():
    found = list(access.judge(PLACEHOLDER, {"worker": [READ], "collector": [WRITE]}))

    assert states(found) == [("problem", "access")] * 2
    assert found[0].detail.startswith("this log-in may not do what a worker does: Read on topic shop.orders")
