"""The OpenAPI document, written from the endpoints themselves, so that it cannot drift from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from opsloop.endpoint import Endpoint

__all__ = ["document"]

_PROBLEM = {
    "description": "What was wrong, and what to do",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_SCHEMAS = {
    "Problem": {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "fix": {"type": "string"},
        },
    }
}


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these endpoints."""
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "opsloop", "version": "1", "summary": "Find what broke, page once, keep it fixed."},
        "paths": paths,
        "components": {"schemas": _SCHEMAS, "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    in_path = re.findall(r"{(\w+)}", endpoint.path)
    described = {parameter.name for parameter in endpoint.parameters}
    parameters = [
        {
            "name": parameter.name,
            "in": "path" if parameter.name in in_path else "query",
            "required": parameter.required or parameter.name in in_path,
            "description": parameter.help,
            "schema": {"type": parameter.kind},
        }
        for parameter in endpoint.parameters
    ]
    parameters += [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in in_path
        if name not in described
    ]
    return {
        "summary": endpoint.summary,
        "operationId": f"{endpoint.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', endpoint.path)}".rstrip("_"),
        "parameters": parameters,
        "security": [{"bearer": [endpoint.scope]}, {}],
        "responses": {"200": {"description": "The answer", "content": {"application/json": {}}}, "default": _PROBLEM},
    }
