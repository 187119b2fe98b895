// The gated delta rule, S_t = a_t S_{t-1} + k_t u_t', u_t = b_t e_t, e_t = v_t - a_t S_{t-1}' k_t, o_t = S_t' q_t, with log a_t <= 0 per head or
// none. Chunks of tokens; in one, with G the running sum of log a and D_ti = e^{G_t - G_i} for i <= t:
//   e_t = v_t - e^{G_t} S' k_t - sum_{i<t} D_ti (k_t k_i) u_i        by substitution, in blocks of rows
//   o_t = e^{G_t} S' q_t + sum_{i<=t} D_ti (q_t k_i) u_i             S <- e^{G_C} S + sum_i e^{G_C - G_i} k_i u_i'
// Backward computes states and errors e forward again and keeps them for one head at a time. G is in double.
#include "chunks.h"

namespace {

constexpr long ROWS = 16;  // of a block of the substitution

template <class S>
struct Head : Chunks<S> {
  using Chunks<S>::at, Chunks<S>::keys, Chunks<S>::values, Chunks<S>::decay, Chunks<S>::total, Chunks<S>::kw, Chunks<S>::vw;
  const S *k, *v, *beta;
  Buffer<S> within;  // D

  Head(const S* k, const S* v, const S* beta, const S* decay, long T, long H, long kw, long vw, long piece)
      : Chunks<S>(decay, T, H, kw, vw, piece), k(k), v(v), beta(beta), within(CHUNK * CHUNK, S(1)) {}

  long enter(long first) {
    long m = Chunks<S>::enter(first);
    for (long t = 0; decay && t < m; ++t)
      for (long i = 0; i <= t; ++i) within[t * m + i] = exponential(S(total[t] - total[i]));
    return m;
  }

  // squares [m, m] of rows and earlier tokens, times D; zero from `row + beyond` on.
  void decayed(S* squares, long m, long beyond) const {
    for (long t = 0; t < m; ++t) {
      S* row = squares + t * m;
      if (decay)
        for (long i = 0; i < t + beyond; ++i) row[i] *= within[t * m + i];
      std::fill(row + t + beyond, row + m, S(0));
    }
  }

  // D (x_t k_i) for i < t + beyond, in `squares`
  void scores(const S* x, long first, long m, long beyond, S* squares) const {
    multiply<S>(m, m, kw, S(1), keys(x, first), turned(keys(k, first)), S(0), {squares, m});
    decayed(squares, m, beyond);
  }

  // The errors e of a chunk and u = b e, [m, vw] each, from `products` = D (k_t k_i), i < t.
  void correct(long first, long m, const S* products, S* errors, S* u) {
    multiply<S>(m, vw, kw, S(-1), this->by_rows(k, this->since, first, m), this->memory(), S(0), {errors, vw});
    for (long t = 0; t < m; ++t) {
      const S* from = v + at(first + t, vw);
      for (long j = 0; j < vw; ++j) errors[t * vw + j] += from[j];
    }
    for (long start = 0; start < m; start += ROWS) {
      long end = std::min(start + ROWS, m);
      if (start) multiply<S>(end - start, vw, start, S(-1), {products + start * m, m}, {u, vw}, S(1), {errors + start * vw, vw});
      for (long t = start; t < end; ++t) {
        S* e = errors + t * vw;
        for (long i = start; i < t; ++i) subtract(e, products[t * m + i], u + i * vw);
        S rate = beta[at(first + t, 1)];
        for (long j = 0; j < vw; ++j) u[t * vw + j] = rate * e[j];
      }
    }
  }

  // The adjoint of `correct`: from the gradient of u that does not pass through later errors, in place, to that of e [m, vw]; y = b times it.
  void correct_adjoint(long first, long m, const S* products, S* to_u, S* y) const {
    for (long start = (m - 1) / ROWS * ROWS; start >= 0; start -= ROWS) {
      long end = std::min(start + ROWS, m);
      Matrix<const S> below{products + end * m + start, m, true};
      if (end < m) multiply<S>(end - start, vw, m - end, S(-1), below, {y + end * vw, vw}, S(1), {to_u + start * vw, vw});
      for (long t = end - 1; t >= start; --t) {
        S* d = to_u + t * vw;
        for (long i = t + 1; i < end; ++i) subtract(d, products[i * m + t], y + i * vw);
        S rate = beta[at(first + t, 1)];
        for (long j = 0; j < vw; ++j) y[t * vw + j] = rate * d[j];
      }
    }
  }

  void subtract(S* from, S by, const S* x) const {
    for (long j = 0; j < vw; ++j) from[j] -= by * x[j];
  }
};

template <class S>
void delta(const S* q, const S* k, const S* v, const S* beta, const S* decay, S* out, long B, long T, long H, long kw, long vw, long threads) {
  parallel_products(B * H, threads, [&](long piece) {
    Head<S> head(k, v, beta, decay, T, H, kw, vw, piece);
    Buffer<S> squares(CHUNK * CHUNK), errors(CHUNK * vw), u(CHUNK * vw);
    for (long first = 0; first < T; first += CHUNK) {
      long m = head.enter(first);
      Matrix<const S> u_{u.data(), vw};
      Matrix<S> out_ = head.values(out, first);
      head.scores(k, first, m, 0, squares.data());
      head.correct(first, m, squares.data(), errors.data(), u.data());
      head.scores(q, first, m, 1, squares.data());
      multiply<S>(m, vw, m, S(1), {squares.data(), m}, u_, S(0), out_);
      multiply<S>(m, vw, kw, S(1), head.by_rows(q, head.since, first, m), head.memory(), S(1), out_);
      head.advance(head.by_rows(k, head.until, first, m), u_, m);
    }
  });
}

// The states before each chunk and the errors of each token of one head.
template <class S>
void forward_again(Head<S>& head, S* starts, S* errors) {
  Buffer<S> squares(CHUNK * CHUNK), u(CHUNK * head.vw);
  for (long first = 0; first < head.T; first += CHUNK) {
    long m = head.enter(first);
    std::copy(head.state.begin(), head.state.end(), starts + first / CHUNK * head.kw * head.vw);
    head.scores(head.k, first, m, 0, squares.data());
    head.correct(first, m, squares.data(), errors + first * head.vw, u.data());
    head.advance(head.by_rows(head.k, head.until, first, m), {u.data(), head.vw}, m);
  }
}

// d_decay is null if there is no decay.
template <class S>
void delta_backward(const S* q, const S* k, const S* v, const S* beta, const S* decay, const S* g, S* dq, S* dk, S* dv, S* d_beta, S* d_decay,
                    long B, long T, long H, long kw, long vw, long threads) {
  parallel_products(B * H, threads, [&](long piece) {
    Head<S> head(k, v, beta, decay, T, H, kw, vw, piece);
    Buffer<S> starts(((T - 1) / CHUNK + 1) * kw * vw), errors(T * vw), u(CHUNK * vw), to_u(CHUNK * vw), y(CHUNK * vw);
    Buffer<S> squares(CHUNK * CHUNK), pull(CHUNK * CHUNK), narrow(CHUNK * kw);
    forward_again(head, starts.data(), errors.data());
    std::fill(head.state.begin(), head.state.end(), S(0));  // from here on the gradient of the state after a chunk
    double from_end = 0;
    for (long first = (T - 1) / CHUNK * CHUNK; first >= 0; first -= CHUNK) {
      long m = head.enter(first);
      const S* e = errors.data() + first * vw;
      for (long t = 0; t < m; ++t)
        for (long j = 0; j < vw; ++j) u[t * vw + j] = beta[head.at(first + t, 1)] * e[t * vw + j];
      Matrix<const S> q_ = head.keys(q, first), k_ = head.keys(k, first), g_ = head.values(g, first), u_{u.data(), vw}, y_{y.data(), vw},
                      before{starts.data() + first / CHUNK * kw * vw, vw}, pull_{pull.data(), m};
      Matrix<S> dq_ = head.keys(dq, first), dk_ = head.keys(dk, first), to_u_{to_u.data(), vw}, narrow_{narrow.data(), kw};
      // what reads u: outputs and the state; then, from the last token on, the errors after it
      head.scores(q, first, m, 1, squares.data());
      multiply<S>(m, vw, m, S(1), {squares.data(), m, true}, g_, S(0), to_u_);
      multiply<S>(m, vw, kw, S(1), head.by_rows(k, head.until, first, m), head.memory(), S(1), to_u_);
      head.scores(k, first, m, 0, squares.data());
      head.correct_adjoint(first, m, squares.data(), to_u.data(), y.data());
      // through the outputs
      multiply<S>(m, m, vw, S(1), g_, turned(u_), S(0), {pull.data(), m});
      head.decayed(pull.data(), m, 1);
      multiply<S>(m, kw, m, S(1), pull_, k_, S(0), dq_);
      multiply<S>(m, kw, vw, S(1), g_, turned(before), S(0), narrow_);
      add_rows<S>(dq_, S(1), narrow.data(), head.since.data(), m, kw);
      multiply<S>(m, kw, m, S(1), turned(pull_), q_, S(0), dk_);
      // through the errors and the state
      multiply<S>(m, m, vw, S(-1), y_, turned(u_), S(0), {pull.data(), m});
      head.decayed(pull.data(), m, 0);
      multiply<S>(m, kw, m, S(1), pull_, k_, S(1), dk_);
      multiply<S>(m, kw, m, S(1), turned(pull_), k_, S(1), dk_);
      multiply<S>(m, kw, vw, S(1), y_, turned(before), S(0), narrow_);
      add_rows<S>(dk_, S(-1), narrow.data(), head.since.data(), m, kw);
      multiply<S>(m, kw, vw, S(1), u_, turned(head.memory()), S(0), narrow_);
      add_rows<S>(dk_, S(1), narrow.data(), head.until.data(), m, kw);
      head.advance(head.by_rows(q, head.since, first, m), g_, m);
      multiply<S>(kw, vw, m, S(-1), turned(head.by_rows(k, head.since, first, m)), y_, S(1), {head.state.data(), vw});
      for (long t = m - 1; t >= 0; --t) {
        long at_k = head.at(first + t, kw), at_v = head.at(first + t, vw), one = head.at(first + t, 1);
        S along = 0;
        for (long j = 0; j < vw; ++j) along += to_u[t * vw + j] * e[t * vw + j];
        d_beta[one] = along;
        std::copy(y.data() + t * vw, y.data() + (t + 1) * vw, dv + at_v);
        if (!d_decay) continue;
        // q·∂q − v·∂v, summed from the end: a decay scales all that was stored before it
        for (long c = 0; c < kw; ++c) from_end += double(q[at_k + c]) * dq[at_k + c];
        for (long j = 0; j < vw; ++j) from_end -= double(v[at_v + j]) * y[t * vw + j];
        d_decay[one] = S(from_end);
      }
    }
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                     \
  extern "C" void delta_##NAME(const S* q, const S* k, const S* v, const S* beta, const S* decay, S* out, long B, long T, long H, long kw,  \
                               long vw, long threads) {                                                                                     \
    delta<S>(q, k, v, beta, decay, out, B, T, H, kw, vw, threads);                                                                          \
  }                                                                                                                                         \
  extern "C" void delta_backward_##NAME(const S* q, const S* k, const S* v, const S* beta, const S* decay, const S* g, S* dq, S* dk, S* dv, \
                                        S* d_beta, S* d_decay, long B, long T, long H, long kw, long vw, long threads) {                    \
    delta_backward<S>(q, k, v, beta, decay, g, dq, dk, dv, d_beta, d_decay, B, T, H, kw, vw, threads);                                      \
  }

EXPORT(float, float)
EXPORT(double, double)
