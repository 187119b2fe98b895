"""Synthetic tasks: recall (MQAR, MAD), state tracking (parity, word problems) and mental arithmetic (Mano)."""
