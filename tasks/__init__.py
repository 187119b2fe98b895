"""Tasks: data, metrics and protocol of every domain. Knows nothing of backbones."""
