// Sizes on which Python and C++ must agree. Their values are in kernels/cpu/sizes.py alone and come as macros of the same names.
#pragma once

#if !defined(SUITE_ROWS_PER_PART) || !defined(SUITE_LINEAR_CHUNK) || !defined(SUITE_SCAN_CHUNK) || \
    !defined(SUITE_SCAN_CHANNELS) || !defined(SUITE_SCORE_SETS) || !defined(SUITE_MAX_RANK) || !defined(SUITE_TABLE_PADDING)
#error "a size is missing: compile with the flags of kernels/cpu/sizes.py"
#endif

constexpr long ROWS_PER_PART = SUITE_ROWS_PER_PART;
constexpr long LINEAR_CHUNK = SUITE_LINEAR_CHUNK;
constexpr long SCAN_CHUNK = SUITE_SCAN_CHUNK;
constexpr long SCAN_CHANNELS = SUITE_SCAN_CHANNELS;
constexpr long SCORE_SETS = SUITE_SCORE_SETS;
constexpr long MAX_RANK = SUITE_MAX_RANK;
constexpr long TABLE_PADDING = SUITE_TABLE_PADDING;
