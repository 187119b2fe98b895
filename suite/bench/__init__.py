"""`suite bench`: speed and memory of kernels, mixers, training and decoding, ours beside others' in the same run."""

import os

os.environ.setdefault(
    "KINETO_LOG_LEVEL", "99"
)  # the profiler that counts memory reports its starts and stops on stderr otherwise
