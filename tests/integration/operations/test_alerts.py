"""docs/alerts and deploy/prometheus.yml: as Prometheus wants them, and about metrics and labels that there are."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from rollout.delivery import consumer, ingestion
from rollout.messages import Phase, Reason
from rollout.transport import DROPPED
from tests.authority import Authority
from tests.recorded_fleet import fleet, installed, inventory, say, start

ROOT = Path(__file__).parents[3]
RULES = ROOT / "docs/alerts/modfleet.rules.yml"
RULE_TESTS = RULES.with_name("modfleet.test.yml")
SAMPLE = ROOT / "deploy/prometheus.yml"
(GROUP,) = yaml.safe_load(RULES.read_text())["groups"]
DURATION = re.compile(r"\d+(s|m|h|d)")
#: Prometheus itself adds these labels.
OF_THE_TARGET = {"job", "instance"}


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


@pytest.fixture
def text(scrape, viewer, broker, monkeypatch):
    """What a scrape answers when all has happened at least once."""
    from operations import relay_heartbeat

    monkeypatch.setattr(relay_heartbeat, "_next_heartbeat", 0.0)
    relay_heartbeat.record_relay_heartbeat(position=0)
    first, second = fleet(2)
    uid = start()
    say(uid, first, inventory=inventory(installed()))
    say(uid, second, Phase.FAILED, reason=Reason.LOAD_FAILED)
    DROPPED.take()
    consumer.record_reports([{}])
    ingestion.record_dropped()
    scrape()
    return viewer.get("/metrics").content.decode()


def test_every_label_that_a_rule_names_is_in_a_scrape(text):
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    checked = 0
    for rule in GROUP["rules"]:
        names = re.findall(r"\bmodfleet_\w+", rule["expr"])
        known = set().union(*(labels[name] for name in names), OF_THE_TARGET)
        matched = [
            (name, label)
            for name, inside in re.findall(r"(\w+){([^}]*)}", rule["expr"])
            for label in re.findall(r"(\w+)[=!]~?=?", inside)
        ]
        assert all(label in labels.get(name, OF_THE_TARGET) for name, label in matched), rule["alert"]
        grouped = {
            label.strip()
            for inside in re.findall(r"(?:by|without) \(([^)]*)\)", rule["expr"])
            for label in inside.split(",")
        }
        assert grouped <= known, rule["alert"]
        shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["description"]))
        assert shown <= (grouped or OF_THE_TARGET), rule["alert"]
        checked += len(matched) + len(grouped) + len(shown)
    assert checked > 20


def test_every_metric_that_a_rule_names_is_in_a_scrape(text):
    families = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    known = families | {f"{name}{end}" for name in families for end in ("_bucket", "_sum", "_count")}
    named = {name for rule in GROUP["rules"] for name in re.findall(r"\bmodfleet_\w+", rule["expr"])}
    assert len(named) > 10
    assert named - known == set()


def test_every_rule_has_a_test_in_which_it_fires():
    fired = set()
    for each in yaml.safe_load(RULE_TESTS.read_text())["tests"]:
        fired |= {alert["alertname"] for alert in each.get("alert_rule_test", []) if alert.get("exp_alerts")}
        for sample in (sample for query in each.get("promql_expr_test", []) for sample in query.get("exp_samples", [])):
            fired |= set(re.findall(r'alertname="(\w+)"', sample["labels"]))
    assert fired == {rule["alert"] for rule in GROUP["rules"]}


def promtool(*words, cwd):
    """Without Debian's package `prometheus`, the test fails."""
    done = subprocess.run(["promtool", *words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_promtool_accepts_the_rules_and_their_tests_pass():
    promtool("check", "rules", RULES.name, cwd=RULES.parent)
    promtool("test", "rules", RULE_TESTS.name, cwd=RULES.parent)


@pytest.mark.slow
def test_promtool_accepts_the_sample(tmp_path):
    text = SAMPLE.read_text()
    for name, content in (("modfleet-ca.pem", Authority(tmp_path).certificate.read_text()), ("modfleet.token", "x")):
        (tmp_path / name).write_text(content)
        assert f"/etc/prometheus/{name}" in text
        text = text.replace(f"/etc/prometheus/{name}", str(tmp_path / name))
    (tmp_path / "prometheus.yml").write_text(text)
    shutil.copy(RULES, tmp_path)
    promtool("check", "config", "prometheus.yml", cwd=tmp_path)


def test_the_sample_scrapes_each_process_over_https_with_the_token():
    sample = yaml.safe_load(SAMPLE.read_text())
    (job,) = sample["scrape_configs"]
    assert sample["rule_files"] == [RULES.name]
    assert (job["job_name"], job["scheme"]) == ("modfleet", "https")
    assert set(job["tls_config"]) == {"ca_file"}
    assert (job["authorization"]["type"], set(job["authorization"])) == ("Bearer", {"type", "credentials_file"})
    paths = [each["labels"]["__metrics_path__"] for each in job["static_configs"]]
    assert paths == ["/metrics/1", "/metrics/2"]  # behind both proxies: tests/integration/api/test_restarts.py
