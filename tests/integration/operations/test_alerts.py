"""docs/alerts/modfleet.rules.yml: as Prometheus wants a rule file, and about metrics that there are."""

import re
from pathlib import Path

import pytest
import yaml

from tests.recorded_fleet import fleet, start

RULES = Path(__file__).parents[3] / "docs/alerts/modfleet.rules.yml"
(GROUP,) = yaml.safe_load(RULES.read_text())["groups"]
DURATION = re.compile(r"\d+(s|m|h|d)")


@pytest.mark.parametrize("rule", GROUP["rules"], ids=lambda rule: rule["alert"])
def test_a_rule_has_the_shape_of_one(rule):
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"[A-Za-z]+", rule["alert"])
    assert DURATION.fullmatch(rule.get("for", "0s"))
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert all(isinstance(each, str) and each for each in rule["annotations"].values())
    assert rule["expr"].count("(") == rule["expr"].count(")")


def test_no_two_rules_have_one_name():
    names = [rule["alert"] for rule in GROUP["rules"]]
    assert len(names) == len(set(names)) > 10


def test_every_metric_that_a_rule_names_is_in_a_scrape(scrape, viewer, broker, monkeypatch):
    from operations import relay_heartbeat

    monkeypatch.setattr(relay_heartbeat, "_next_heartbeat", 0.0)
    relay_heartbeat.record_relay_heartbeat(position=0)
    fleet(1)
    start()
    scrape()
    text = viewer.get("/metrics").content.decode()
    families = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    known = families | {f"{name}{end}" for name in families for end in ("_bucket", "_sum", "_count")}
    named = {name for rule in GROUP["rules"] for name in re.findall(r"\bmodfleet_\w+", rule["expr"])}
    assert len(named) > 10
    assert named - known == set()
