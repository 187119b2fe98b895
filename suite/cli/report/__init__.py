"""What the commands tell: plain values for `--json`, tables for people."""
