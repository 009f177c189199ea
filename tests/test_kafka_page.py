"""docs/kafka.md: what it tells people to write is right, and what it quotes is what they see."""

import re
from pathlib import Path

import pytest

from app import topic_plan, topics
from app.bearer import MskIam
from app.settings import parse
from app.topics import DAY, There

PAGE = (Path(__file__).parent.parent / "docs" / "kafka.md").read_text()
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_is_a_configuration(text, monkeypatch):
    monkeypatch.setattr(MskIam, "missing", lambda _self: "")  # it has an extra

    parse(text)


def test_there_are_examples_of_all_ways_in():
    text = "".join(EXAMPLES)

    for way in ("SCRAM-SHA-512", "PLAIN", "OAUTHBEARER", "oauth", "msk_iam", "certificate ="):
        assert way in text


def test_the_plan_that_it_shows_is_what_the_command_prints():
    config = parse(
        '[destinations.meta]\nsink = "meta"\ndataset_id = "1234567890"\naccess_token = { env = "T" }\nbrowser_tag = "none"'
    )
    name = topics.names(config)
    rows = []
    for topic in topics.plan(config):
        if topic.name in (name.events, name.to("meta")):
            kept = {"retention.ms": str(DAY)} if topic.name == name.to("meta") else {}
            is_ = topics.config(topic, 3) | {"max.message.bytes": "1048588"} | kept
            todo = topic_plan.of_ours(topic, There(12, 3, None), is_, config)
            rows.append(topic_plan.Row(topic, There(12, 3, None), is_, 3, todo=tuple(todo)))

    printed = [re.sub(" +", " ", line) for line in topic_plan.table(rows)]
    shown = re.search(r"```\n(TOPIC.*?)```", PAGE, re.DOTALL)

    assert shown
    assert [re.sub(" +", " ", line) for line in shown[1].splitlines()] == printed
