"""Bridges to other libraries, one module each; a module may need its library, and nothing else needs the module."""

from __future__ import annotations

__all__: list[str] = []
