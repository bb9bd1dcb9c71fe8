"""Loading rules: everything that can be wrong is found before anything runs."""

from __future__ import annotations

import pytest

from opsloop.alerting import load_rules, read_rules
from opsloop.errors import ConfigError
from opsloop.settings import Settings
from tests.alerting.readings import alert, settings_of


def load(*alerts):
    """Load alerts over the tests' objectives."""
    return load_rules(settings_of(*alerts))


def test_the_default_rules_load():
    """The settings that ship are right, and their formula can name every default signal."""
    (rule,) = load_rules(Settings()).rules
    assert (rule.id, rule.severity, rule.receivers) == ("service-unhealthy", "page", ("notices",))


@pytest.mark.parametrize(
    ("alerts", "message"),
    [
        ([alert("BREACH(latncy)")], "alert 'unhealthy' names the unknown signal 'latncy'"),
        ([alert(unless="BREACH(deploy)")], "alert 'unhealthy' names the unknown signal 'deploy'"),
        (
            [alert("AT_LEAST(2, BREACH, (latency, latency-p99))")],
            "alert 'unhealthy' asks for 2 votes, but its list has 1 distinct signals (latency)",
        ),
        (
            [alert("BREACH(b)", id="a"), alert("NOT OK(c) AND BREACH(latency)", id="b"), alert("BREACH(a)", id="c")],
            "alerts name each other in a circle: a -> b -> c -> a",
        ),
        ([alert("BREACH(unhealthy)")], "alerts name each other in a circle: unhealthy -> unhealthy"),
        ([alert(unless="BREACH(unhealthy)")], "alert 'unhealthy' suppresses itself"),
        ([alert(id="latency")], "'latency' names an alert and a signal"),
        ([alert(points=2, points_to_fire=3)], "alert 'unhealthy': points_to_fire is 3, but points is 2"),
        (
            [alert("BREACH(latency")],
            "alert 'unhealthy', when: line 1, column 15: found the end, expected ')'",
        ),
    ],
)
def test_a_wrong_rule_is_refused_with_its_place(alerts, message):
    """An unknown id, an m that cannot be reached, a circle, a typo: each names the alert and the fault."""
    with pytest.raises(ConfigError) as caught:
        load(*alerts)
    assert caught.value.message == message
    assert caught.value.fix


def test_a_formula_may_name_burns_and_drift():
    """Each SLO gives burn-ID and slow-burn-ID in its signal's group, and the scores give drift in quality's."""
    settings = Settings(alert=(alert("AT_LEAST(3, BREACH, (burn-availability, slow-burn-fast, drift))"),))
    groups = load_rules(settings).groups
    assert [groups[name] for name in ("burn-availability", "slow-burn-fast", "drift")] == [
        "errors",
        "latency",
        "quality",
    ]


def test_a_composite_may_name_another():
    """A formula names another alert by its id, in any order of the file."""
    assert [rule.id for rule in load(alert("BREACH(b)", id="a"), alert("BREACH(latency)", id="b")).rules] == ["a", "b"]


def test_a_rule_file_names_what_is_wrong_in_it():
    """A table with an unknown setting is refused with its path."""
    with pytest.raises(ConfigError, match=r"\[\[alert\]\]: .*whem"):
        read_rules([{"id": "a", "whem": "BREACH(latency)"}], settings_of())
