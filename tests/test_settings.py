"""Settings: one file, the environment over it, and a sentence for what is wrong."""

from __future__ import annotations

import pytest

from opsloop.errors import ConfigError
from opsloop.settings import ENVIRONMENT, Settings, load_settings


def test_defaults_serve_a_laptop(tmp_path, monkeypatch):
    """Without a file and without variables everything has a value."""
    monkeypatch.chdir(tmp_path)
    assert load_settings(environ={}) == Settings()


def test_a_file_overrides_defaults_and_the_environment_overrides_the_file(tmp_path):
    """A table changes what it names; a list replaces the default list."""
    file = tmp_path / "opsloop.toml"
    file.write_text(
        '[server]\nport = 5000\nretention_days = 45\n[[slo]]\nid = "up"\ntarget = 0.99\n[[limit]]\nid = "slots"\n'
        'lever = "concurrency"\namount = 4\nscope = []\n'
    )
    settings = load_settings(file, environ={"OPSLOOP_PORT": "6000", "OPSLOOP_SERVICE": "bot"})
    assert (settings.server.port, settings.server.retention_days, settings.log.service) == (6000, 45, "bot")
    assert [slo.id for slo in settings.slo] == ["up"]
    assert [limit.id for limit in settings.limit] == ["slots"]


def test_opsloop_config_names_the_file(tmp_path):
    """The variable points at a file, and a missing one is an error, not a default."""
    file = tmp_path / "other.toml"
    file.write_text("[server]\nport = 5001\n")
    assert load_settings(environ={"OPSLOOP_CONFIG": str(file)}).server.port == 5001
    with pytest.raises(ConfigError, match=r"cannot read .*: No such file or directory; check --config"):
        load_settings(tmp_path / "missing.toml", environ={})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server\n", "is not TOML"),
        ('[server]\nport = "ninety"\n', "Expected `int`, got `str` - at `$.server.port`"),
        ("[server]\nprot = 1\n", "Object contains unknown field `prot` - at `$.server`"),
        ("[eval]\nsample_rate = 2\n", "Expected `float` <= 1.0 - at `$.eval.sample_rate`"),
        ('[[slo]]\nid = "a"\n[[slo]]\nid = "a"\n', "two [[slo]] have the id 'a'"),
        ('[[slo]]\nid = "a"\nsli = "latency"\n', "slo 'a' of kind latency needs threshold_us"),
        (
            '[[slo]]\nid = "a"\nlabels = { duration_us = "slow" }\n',
            "slo 'a': duration_us is compared with a number, not 'slow'; write duration_us:>=500",
        ),
        (
            '[[objective]]\nid = "x"\ngroup = "errors"\nmeasure = "m"\nthreshold = 1\nlabels = { attributes = "x" }\n',
            "objective 'x': a filter needs a field or an attribute path",
        ),
        (
            '[[objective]]\nid = "x"\ngroup = "speed"\nmeasure = "m"\nthreshold = 1\n',
            "objective 'x' has the unknown group 'speed'; use one of latency, traffic, errors",
        ),
        (
            '[[alert]]\nid = "a"\nwhen = "TRUE"\nnotify = ["pager"]\n',
            "alert 'a' notifies 'pager', which is no receiver",
        ),
    ],
)
def test_a_wrong_setting_says_its_place(tmp_path, text, message):
    """The error names the file and the setting."""
    file = tmp_path / "opsloop.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(file, environ={})
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_every_variable_names_a_setting():
    """Each environment variable overrides a setting that exists."""
    for setting in ENVIRONMENT.values():
        section, _, name = setting.partition(".")
        assert hasattr(getattr(Settings(), section), name)
