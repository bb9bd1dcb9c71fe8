"""Python values as OTLP carries them."""

from __future__ import annotations

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

__all__ = ["any_value", "pairs"]


def any_value(item):
    """Return a Python value as an OTLP AnyValue; bytes and None too."""
    match item:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=item)
        case int():
            return AnyValue(int_value=item)
        case float():
            return AnyValue(double_value=item)
        case bytes():
            return AnyValue(bytes_value=item)
        case list():
            return AnyValue(array_value=ArrayValue(values=map(any_value, item)))
        case dict():
            return AnyValue(kvlist_value=KeyValueList(values=pairs(item)))
        case _:
            return AnyValue(string_value=item)


def pairs(attributes):
    """Return attributes, or a list of items in which a name may come twice, as OTLP key-value pairs."""
    items = attributes.items() if isinstance(attributes, dict) else attributes
    return [KeyValue(key=key, value=any_value(item)) for key, item in items]
