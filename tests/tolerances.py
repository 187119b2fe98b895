"""How far two right computations may differ, in one place. All are fractions of the largest entry compared.

A tolerance says what is compared, never what passes: one that has to grow points to an error.
"""

import math

FP64 = 1e-10  # two orders of summation in fp64, of well-conditioned problems
FP32_SCAN = 1e-5  # a scan or a sum over thousands of tokens in fp32, against fp64
PREFIX = 1e-6  # outputs at a position, whatever comes after it, in fp32
BF16 = (
    4 * 2.0**-9
)  # one pass of a kernel with products in bf16: four roundings between inputs and gradients, against fp64
FP32 = 2e-6  # one pass of a kernel in fp32, against fp64


def fp32_sum(terms: int) -> float:
    """One pass in fp32 whose longest sum has this many terms: unordered rounding grows with their square root."""
    return max(FP32, 2.0**-24 * math.sqrt(terms))
