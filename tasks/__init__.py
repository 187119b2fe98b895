"""Tasks: data, metrics and protocol of every domain. Knows nothing of backbones."""

from tasks.base import CAUSAL_DOMAINS, DOMAINS
from tasks.registry import UnknownTask, built_in, get, names, origin

__all__ = ["CAUSAL_DOMAINS", "DOMAINS", "UnknownTask", "built_in", "get", "names", "origin"]
