"""`suite bench`: speed and memory of kernels, mixers, training and decoding, compared with other implementations."""

import os

# Otherwise the profiler that measures memory prints its starts and stops on stderr.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
