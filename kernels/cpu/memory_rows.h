// Rows of a memory S [K, W], four at a time, so that the sums over rows are loaded and stored once for four.
#pragma once

constexpr long ROWS_AT_ONCE = 4;

// out_j += Σ_c by_c S_cj for `count` rows
template <class S>
void add_rows(const S* rows, const S* by, long count, long W, S* __restrict out) {
  long c = 0;
  for (; c + ROWS_AT_ONCE <= count; c += ROWS_AT_ONCE) {
    const S *__restrict r0 = rows + c * W, *__restrict r1 = r0 + W, *__restrict r2 = r1 + W, *__restrict r3 = r2 + W;
    const S b0 = by[c], b1 = by[c + 1], b2 = by[c + 2], b3 = by[c + 3];
    for (long j = 0; j < W; ++j) out[j] += (b0 * r0[j] + b1 * r1[j]) + (b2 * r2[j] + b3 * r3[j]);
  }
  for (; c < count; ++c)
    for (long j = 0; j < W; ++j) out[j] += by[c] * rows[c * W + j];
}

// The rows after the token, and their sums by the query.
template <class S>
void enter_and_read(S* rows, const S* decay, const S* k, const S* q, const S* __restrict v, long count, long W, S* __restrict out) {
  long c = 0;
  for (; c + ROWS_AT_ONCE <= count; c += ROWS_AT_ONCE) {
    S *__restrict r0 = rows + c * W, *__restrict r1 = r0 + W, *__restrict r2 = r1 + W, *__restrict r3 = r2 + W;
    const S a0 = decay[c], a1 = decay[c + 1], a2 = decay[c + 2], a3 = decay[c + 3], k0 = k[c], k1 = k[c + 1], k2 = k[c + 2],
            k3 = k[c + 3], q0 = q[c], q1 = q[c + 1], q2 = q[c + 2], q3 = q[c + 3];
    for (long j = 0; j < W; ++j) {
      S x = v[j], s0 = a0 * r0[j] + k0 * x, s1 = a1 * r1[j] + k1 * x, s2 = a2 * r2[j] + k2 * x, s3 = a3 * r3[j] + k3 * x;
      r0[j] = s0, r1[j] = s1, r2[j] = s2, r3[j] = s3;
      out[j] += (q0 * s0 + q1 * s1) + (q2 * s2 + q3 * s3);
    }
  }
  for (; c < count; ++c)
    for (long j = 0; j < W; ++j) {
      S* row = rows + c * W;
      row[j] = decay[c] * row[j] + k[c] * v[j];
      out[j] += q[c] * row[j];
    }
}
