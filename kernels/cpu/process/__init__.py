"""The process that uses compiled kernels: files it trusts, how long idle threads wait, what becomes of freed memory."""
