"""How a number with a unit is written for people. For display only: nothing is compared after it was written."""

from __future__ import annotations

from typing import Final

__all__ = ["NONE", "amount", "share", "span", "two_amounts"]

NONE: Final = "-"
"""What stands for a value that is not known."""


def amount(value: float | None, unit: str) -> str:
    """Return a value in a readable unit; an unknown one is a dash.

    >>> amount(2_314_000, "us"), amount(0.0731, "ratio"), amount(None, "us")
    ('2.31 s', '7.31%', '-')
    """
    if value is None:
        return NONE
    match unit:
        case "us":
            return _duration(value)
        case "ratio":
            return f"{_three(value * 100)}%"
        case "1/s":
            return f"{_three(value)} /s"
        case "microusd":
            return f"${value / 1e6:,.6f}".rstrip("0").rstrip(".")
        case "burn":
            return f"{_three(value)}x"
        case _:
            return _three(value)


def two_amounts(value: float, threshold: float, unit: str) -> tuple[str, str]:
    """Return both sides of a comparison, in full where rounding would make two different numbers look the same.

    >>> two_amounts(1_500_001, 1_500_000, "us")
    ('1500001 us', '1500000 us')
    """
    left, right = amount(value, unit), amount(threshold, unit)
    if left == right and value != threshold:
        return f"{value!r} {unit}", f"{threshold!r} {unit}"
    return left, right


def share(value: float) -> str:
    """Return a share that was written down, such as a target, with all its digits.

    >>> share(0.9995), share(0.005)
    ('99.95%', '0.5%')
    """
    return f"{value * 100:.10g}%"


def span(seconds: float) -> str:
    """Return a length of time in its largest whole unit.

    >>> span(300), span(3600), span(259_200), span(90)
    ('5 m', '1 h', '3 d', '1.5 m')
    """
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.3g} s"


def _duration(value_us: float) -> str:
    for size, name in ((1e6, "s"), (1e3, "ms")):
        if abs(value_us) >= size:
            return f"{_three(value_us / size)} {name}"
    return f"{_three(value_us)} µs"


def _three(value: float) -> str:
    """Return at least three significant digits, and every digit before the point."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 or not size else 4
    return f"{value:,.{digits}f}"
