"""Tasks: data, metrics and protocol of every domain. Knows nothing of backbones."""

from tasks.registry import UnknownTask, get, names

__all__ = ["UnknownTask", "get", "names"]
