// The suite's own matrix products, for processors whose vendor library is slow or absent; see blocked.cpp.
#pragma once

// One factor b [k, n] in the order in which products read it: blocks of up to DEPTH rows, each in panels of columns that fill registers.
template <class S>
long packed_size(long k, long n);

// packed [packed_size(k, n)] from b in row order, its rows `pitch` numbers apart; b holds the transpose if `turned`.
template <class S>
void pack(long k, long n, const S* b, long pitch, bool turned, S* packed);

// out [m, n] = by · a [m, k] b [k, n] + keep · out, with b the first rows and columns of a packed [K, N]. The sum of an entry is taken in
// the order of k, whatever m and n are.
template <class S>
void packed_product(long m, long n, long k, S by, const S* a, long a_pitch, bool a_turned, const S* packed, long K, long N, S keep, S* out,
                    long pitch);

// The same with b as it is.
template <class S>
void blocked_product(long m, long n, long k, S by, const S* a, long a_pitch, bool a_turned, const S* b, long b_pitch, bool b_turned, S keep,
                     S* out, long pitch);
