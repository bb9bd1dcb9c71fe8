"""An Alertmanager configuration for the exported rules: pages to the pager, tickets beside, a ticket never over a page.

Rule
    A page and a ticket of one objective are one problem: while the page fires the ticket is inhibited. Both are grouped
    by service and objective. Secrets are never written: a receiver reads its key or address from a file named after the
    variable that holds it here, under :data:`SECRETS`.
Lossy
    A receiver of kind ``file`` has no counterpart and gets an empty receiver, as has a webhook whose address is secret.
    A webhook gets Alertmanager's own object. Composites, ``unless`` and cool-downs stay with us. All receivers get both
    severities unless an alert says whom it notifies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from opsloop.integrations.document import write_yaml
from opsloop.integrations.prometheus_rules import duration
from opsloop.settings import ReceiverSettings, Settings

__all__ = ["SECRETS", "alertmanager_config", "alertmanager_values", "not_exported"]

SECRETS: Final = "/etc/alertmanager/secrets"

_HEAD = """Alertmanager configuration of opsloop's objectives, written by: opsloop export alertmanager
Check with: amtool check-config FILE"""
_SEVERITIES: Final = ("page", "ticket")


def alertmanager_config(settings: Settings) -> str:
    """Return the configuration as YAML; what it could not say stands in its head.

    >>> print(alertmanager_config(Settings()).splitlines()[2])
    # Lossy: receiver notices is of kind file, which Alertmanager has not: it sends nothing
    """
    notes = "".join(f"\nLossy: {note}" for note in not_exported(settings))
    return write_yaml([alertmanager_values(settings)], head=_HEAD + notes)


def alertmanager_values(settings: Settings) -> dict[str, Any]:
    """Return the configuration as plain values."""
    timing = settings.alert[0] if settings.alert else None
    grouping = {
        "group_wait": duration(timing.group_wait_seconds) if timing else "30s",
        "group_interval": duration(max(1.0, timing.group_interval_seconds)) if timing else "5m",
        "repeat_interval": duration(timing.repeat_seconds) if timing else "4h",
    }
    named = {severity: _notified(settings, severity) for severity in _SEVERITIES}
    used = sorted({name for names in named.values() for name in names})
    by_id = {receiver.id: receiver for receiver in settings.receiver}
    return {
        "route": {
            "receiver": "nobody",
            "group_by": ["service", "slo"],
            **grouping,
            "routes": [
                {"receiver": name, "matchers": [f'severity="{severity}"'], "continue": True}
                for severity, names in named.items()
                for name in names
            ],
        },
        "inhibit_rules": [
            {
                "source_matchers": ['severity="page"'],
                "target_matchers": ['severity="ticket"'],
                "equal": ["service", "slo"],
            }
        ],
        "receivers": [{"name": "nobody"}, *(_receiver(by_id[name]) for name in used)],
    }


def not_exported(settings: Settings) -> list[str]:
    """Return a sentence for each part of the settings that the configuration leaves out."""
    notes = [note for each in settings.receiver if (note := _note(each))]
    notes += [
        f"alert {each.id} votes over several signals, which Prometheus rules and routes cannot: opsloop keeps it"
        for each in settings.alert
    ]
    return notes


def _notified(settings: Settings, severity: str) -> Sequence[str]:
    """Return the receivers of a severity: those that its alerts name, all where none is named."""
    named = [name for alert in settings.alert if alert.severity == severity for name in alert.notify]
    return list(dict.fromkeys(named)) or [receiver.id for receiver in settings.receiver]


def _note(receiver: ReceiverSettings) -> str:
    """Return what is lost of a receiver, if anything."""
    match receiver.kind:
        case "file":
            return f"receiver {receiver.id} is of kind file, which Alertmanager has not: it sends nothing"
        case "webhook" | "alertmanager" if not receiver.url or "{secret}" in receiver.url:
            return f"receiver {receiver.id} has a secret address, which must be written by hand: it sends nothing"
        case "webhook":
            return f"receiver {receiver.id} gets Alertmanager's object, version 4, in place of ours"
        case _:
            return ""


def _receiver(receiver: ReceiverSettings) -> dict[str, Any]:
    secret = f"{SECRETS}/{receiver.secret_env or receiver.id}"
    named: dict[str, Any] = {"name": receiver.id}
    if "sends nothing" in _note(receiver):
        return named
    match receiver.kind:
        case "slack":
            plain = receiver.url and "{secret}" not in receiver.url
            address = {"api_url": receiver.url} if plain else {"api_url_file": secret}
            return named | {"slack_configs": [{**address, "send_resolved": True}]}
        case "pagerduty":
            found = {"routing_key_file": secret, "severity": _PAGERDUTY_SEVERITY, "send_resolved": True}
            return named | {"pagerduty_configs": [found]}
        case _:
            webhook: dict[str, Any] = {"url": receiver.url, "send_resolved": True}
            if receiver.secret_env:
                webhook["http_config"] = {"authorization": {"credentials_file": secret}}
            return named | {"webhook_configs": [webhook]}


_PAGERDUTY_SEVERITY: Final = '{{ if eq .CommonLabels.severity "page" }}critical{{ else }}warning{{ end }}'
"""PagerDuty knows critical, error, warning and info."""
