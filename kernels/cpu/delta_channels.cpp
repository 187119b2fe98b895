// The delta rule with one decay per key channel, M_t = diag(a_t) S_{t-1}, S_t = M_t + k_t u_t', u_t = b_t e_t, e_t = v_t - M_t' c_t, o_t = S_t' q_t,
// with log a_t <= 0 per channel and c what a correction reads. Chunks of tokens; in one, with G the running sums of log a and the overlap
// <x_t, y_i> = sum_c x_tc y_ic e^{G_tc - G_ic}:
//   e_t = v_t - S' (e^{G_t} c_t) - sum_{i<t} <c_t, k_i> u_i         by substitution, in blocks of rows
//   o_t = S' (e^{G_t} q_t) + sum_{i<=t} <q_t, k_i> u_i              S <- e^{G_C} S + sum_i (e^{G_C - G_i} k_i) u_i'
// Overlaps with earlier blocks of tokens are products at the border before a block, where both factors are at most 1; in a block keys decay
// from token to token, one lane for each token of the block. No exponent is clipped.
// Backward computes states, overlaps and errors e forward again and keeps them for one head at a time.
#include "channel_chunks.h"
#include "corrections.h"
#include "denormals.h"

namespace {

// One number for each token of a block.
template <class S>
struct OfBlock {
  typedef S Lanes __attribute__((vector_size(BLOCK * sizeof(S))));
};

template <class S>
struct ChannelDelta : ChannelChunks<S> {
  using Base = ChannelChunks<S>;
  using Base::at, Base::row, Base::kw, Base::vw, Base::H, Base::first, Base::m, Base::kept, Base::since, Base::until, Base::to_later, Base::to_border;
  using Lanes = typename OfBlock<S>::Lanes;
  const S *q, *k, *v, *beta, *c;
  Buffer<S> later_q, later_c, earlier, narrow;  // q and c by to_later, k by to_border
  Buffer<Lanes> moving, to_q, to_c;             // [kw] of a block: keys as they decay; gradients of its q and c
  Lanes unit[BLOCK];                            // one for one token

  ChannelDelta(const S* q, const S* k, const S* v, const S* beta, const S* decay, const S* c, long T, long H, long kw, long vw, long piece)
      : Base(decay, T, H, kw, vw, piece), q(q), k(k), v(v), beta(beta), c(c), later_q(BLOCK * kw), later_c(BLOCK * kw), earlier(CHUNK * kw),
        narrow(CHUNK * kw), moving(kw), to_q(kw), to_c(kw) {
    for (long t = 0; t < BLOCK; ++t) {
      unit[t] = Lanes{};
      unit[t][t] = S(1);
    }
  }

  const S* beta_here() const { return beta + at(first, 1); }

  void meet(long start, long n) {
    Base::meet(start, n);
    this->scale(q, start, n, to_later, later_q.data());
    this->scale(c, start, n, to_later, later_c.data());
    this->scale(k, 0, start, to_border, earlier.data());
  }

  // answers <q_t, k_i> for i <= t and products <c_t, k_i> for i < t of the chunk, [m, m] each and zero elsewhere
  void overlaps(S* answers, S* products) {
    std::fill(answers, answers + m * m, S(0));
    std::fill(products, products + m * m, S(0));
    for (long start = 0; start < m; start += BLOCK) {
      long n = std::min(BLOCK, m - start);
      if (start) {
        meet(start, n);
        Matrix<const S> keys{earlier.data(), kw, true};
        multiply<S>(n, start, kw, S(1), {later_q.data(), kw}, keys, S(0), {answers + start * m, m});
        multiply<S>(n, start, kw, S(1), {later_c.data(), kw}, keys, S(0), {products + start * m, m});
      }
      within(start, n, answers, products);
    }
  }

  void within(long start, long n, S* answers, S* products) {
    std::fill(moving.begin(), moving.end(), Lanes{});
    for (long t = 0; t < n; ++t) {
      const S *q_ = row(q, start + t), *c_ = row(c, start + t), *k_ = row(k, start + t), *keep = &kept[(start + t) * kw];
      Lanes answer{}, product{}, own = unit[t];
      for (long j = 0; j < kw; ++j) {
        Lanes past = moving[j] * keep[j], all = past + own * k_[j];
        product += past * c_[j];
        answer += all * q_[j];
        moving[j] = all;
      }
      for (long i = 0; i <= t; ++i) {
        answers[(start + t) * m + start + i] = answer[i];
        products[(start + t) * m + start + i] = product[i];
      }
    }
  }

  // The errors e of the chunk and u = b e, [m, vw] each.
  void correct(const S* products, S* errors, S* u) {
    multiply<S>(m, vw, kw, S(-1), this->by(c, since), this->memory(), S(0), {errors, vw});
    for (long t = 0; t < m; ++t) subtract(errors + t * vw, S(-1), v + at(first + t, vw), vw);
    substitute(m, vw, products, beta_here(), H, errors, u);
  }

  void advance(const S* u) {
    this->decay_state();
    this->add_to_state(S(1), k, until, {u, vw});
  }

  // Add to dq, dc and dk what comes from the gradients of the overlaps, [m, m] each and zero where those are.
  void pull(const S* answers, const S* products, S* dq, S* dc, S* dk) {
    for (long start = 0; start < m; start += BLOCK) {
      long n = std::min(BLOCK, m - start);
      if (start) {
        meet(start, n);
        Matrix<const S> keys{earlier.data(), kw}, a{answers + start * m, m}, p{products + start * m, m};
        Matrix<S> narrow_{narrow.data(), kw};
        multiply<S>(n, kw, start, S(1), a, keys, S(0), narrow_);
        add(dq, start, n, S(1), narrow, to_later);
        multiply<S>(n, kw, start, S(1), p, keys, S(0), narrow_);
        add(dc, start, n, S(1), narrow, to_later);
        multiply<S>(start, kw, n, S(1), turned(a), {later_q.data(), kw}, S(0), narrow_);
        multiply<S>(start, kw, n, S(1), turned(p), {later_c.data(), kw}, S(1), narrow_);
        add(dk, 0, start, S(1), narrow, to_border);
      }
      pull_rows(start, n, answers, products, dq, dc);
      pull_keys(start, n, answers, products, dk);
    }
  }

  // In a block: lanes are rows t, and the factors e^{G_t - G_i} go from key to key, from the last one on.
  void pull_rows(long start, long n, const S* answers, const S* products, S* dq, S* dc) {
    for (auto* each : {&moving, &to_q, &to_c}) std::fill(each->begin(), each->end(), Lanes{});
    for (long i = n - 1; i >= 0; --i) {
      const S *k_ = row(k, start + i), *keep = i + 1 < n ? &kept[(start + i + 1) * kw] : nullptr;
      Lanes answer{}, product{}, own = unit[i];
      for (long t = i; t < n; ++t) {
        answer[t] = answers[(start + t) * m + start + i];
        product[t] = products[(start + t) * m + start + i];
      }
      for (long j = 0; j < kw; ++j) {
        Lanes factor = keep ? moving[j] * keep[j] + own : own, key = factor * k_[j];
        to_q[j] += key * answer;
        to_c[j] += key * product;
        moving[j] = factor;
      }
    }
    for (long t = 0; t < n; ++t) {
      S *q_ = dq + at(first + start + t, kw), *c_ = dc + at(first + start + t, kw);
      for (long j = 0; j < kw; ++j) q_[j] += to_q[j][t], c_[j] += to_c[j][t];
    }
  }

  // In a block: lanes are keys i, and what later tokens send to them decays from token to token.
  void pull_keys(long start, long n, const S* answers, const S* products, S* dk) {
    std::fill(moving.begin(), moving.end(), Lanes{});
    for (long t = n - 1; t >= 0; --t) {
      const S *q_ = row(q, start + t), *c_ = row(c, start + t), *keep = t + 1 < n ? &kept[(start + t + 1) * kw] : nullptr;
      S* k_ = dk + at(first + start + t, kw);
      Lanes answer{}, product{};
      for (long i = 0; i <= t; ++i) {
        answer[i] = answers[(start + t) * m + start + i];
        product[i] = products[(start + t) * m + start + i];
      }
      for (long j = 0; j < kw; ++j) {
        Lanes sent = answer * q_[j] + product * c_[j];
        moving[j] = keep ? moving[j] * keep[j] + sent : sent;
        k_[j] += moving[j][t];
      }
    }
  }

  // d += by · x times factors, of n rows from `start` on
  void add(S* d, long start, long n, S by, const Buffer<S>& x, const Buffer<S>& factor) const {
    for (long t = 0; t < n; ++t) {
      S* to = d + at(first + start + t, kw);
      for (long j = 0; j < kw; ++j) to[j] += by * x[t * kw + j] * factor[t * kw + j];
    }
  }

  // d = by · (x stateᵀ) times factors
  void through(S* d, S by, Matrix<const S> x, Matrix<const S> state, const Buffer<S>& factor) {
    multiply<S>(m, kw, vw, by, x, turned(state), S(0), {narrow.data(), kw});
    for (long t = 0; t < m; ++t) std::fill_n(d + at(first + t, kw), kw, S(0));
    add(d, 0, m, S(1), narrow, factor);
  }
};

template <class S>
void delta(const S* q, const S* k, const S* v, const S* beta, const S* decay, const S* c, S* out, long B, long T, long H, long kw, long vw,
           long threads) {
  parallel_products(B * H, threads, [&](long piece) {
    WithoutDenormals guard;
    ChannelDelta<S> head(q, k, v, beta, decay, c, T, H, kw, vw, piece);
    Buffer<S> answers(CHUNK * CHUNK), products(CHUNK * CHUNK), errors(CHUNK * vw), u(CHUNK * vw);
    for (long first = 0; first < T; first += CHUNK) {
      head.enter(first);
      head.overlaps(answers.data(), products.data());
      head.correct(products.data(), errors.data(), u.data());
      Matrix<S> out_ = head.of_values(out);
      multiply<S>(head.m, vw, head.m, S(1), {answers.data(), head.m}, {u.data(), vw}, S(0), out_);
      multiply<S>(head.m, vw, kw, S(1), head.by(q, head.since), head.memory(), S(1), out_);
      head.advance(u.data());
    }
  });
}

// Of one head, for each chunk: the state before it, its overlaps, and the errors of its tokens.
template <class S>
struct Kept {
  Buffer<S> starts, answers, products, errors;

  explicit Kept(ChannelDelta<S>& head)
      : starts(((head.T - 1) / CHUNK + 1) * head.kw * head.vw), answers(head.T * CHUNK), products(head.T * CHUNK), errors(head.T * head.vw) {
    Buffer<S> u(CHUNK * head.vw);
    for (long first = 0; first < head.T; first += CHUNK) {
      head.enter(first);
      std::copy(head.state.begin(), head.state.end(), &starts[first / CHUNK * head.kw * head.vw]);
      head.overlaps(&answers[first * CHUNK], &products[first * CHUNK]);
      head.correct(&products[first * CHUNK], &errors[first * head.vw], u.data());
      head.advance(u.data());
    }
  }
};

// x yᵀ [m, m] times `by`, zero from `row + beyond` on.
template <class S>
void outer(long m, long vw, S by, Matrix<const S> x, Matrix<const S> y, long beyond, S* out) {
  multiply<S>(m, m, vw, by, x, turned(y), S(0), {out, m});
  for (long t = 0; t < m; ++t) std::fill(out + t * m + t + beyond, out + (t + 1) * m, S(0));
}

template <class S>
void delta_backward(const S* q, const S* k, const S* v, const S* beta, const S* decay, const S* c, const S* g, S* dq, S* dk, S* dv, S* d_beta,
                    S* d_decay, S* dc, long B, long T, long H, long kw, long vw, long threads) {
  parallel_products(B * H, threads, [&](long piece) {
    WithoutDenormals guard;
    ChannelDelta<S> head(q, k, v, beta, decay, c, T, H, kw, vw, piece);
    Kept<S> before(head);
    Buffer<S> u(CHUNK * vw), to_u(CHUNK * vw), y(CHUNK * vw), to_answers(CHUNK * CHUNK), to_products(CHUNK * CHUNK);
    Buffer<double> from_end(kw);
    std::fill(head.state.begin(), head.state.end(), S(0));  // from here on the gradient of the state after a chunk
    for (long first = (T - 1) / CHUNK * CHUNK; first >= 0; first -= CHUNK) {
      head.enter(first);
      long m = head.m;
      const S *e = &before.errors[first * vw], *rate = head.beta_here();
      for (long t = 0; t < m; ++t)
        for (long j = 0; j < vw; ++j) u[t * vw + j] = rate[t * H] * e[t * vw + j];
      Matrix<const S> g_ = head.of_values(g), u_{u.data(), vw}, y_{y.data(), vw}, start{&before.starts[first / CHUNK * kw * vw], vw};
      Matrix<S> to_u_{to_u.data(), vw};
      // what reads u: outputs and the state; then, from the last token on, the errors after it
      multiply<S>(m, vw, m, S(1), {&before.answers[first * CHUNK], m, true}, g_, S(0), to_u_);
      multiply<S>(m, vw, kw, S(1), head.by(k, head.until), head.memory(), S(1), to_u_);
      substitute_adjoint(m, vw, &before.products[first * CHUNK], rate, H, to_u.data(), y.data());
      // through the states, then through the overlaps
      head.through(dq, S(1), g_, start, head.since);
      head.through(dc, S(-1), y_, start, head.since);
      head.through(dk, S(1), u_, head.memory(), head.until);
      outer(m, vw, S(1), g_, u_, 1, to_answers.data());
      outer(m, vw, S(-1), y_, u_, 0, to_products.data());
      head.pull(to_answers.data(), to_products.data(), dq, dc, dk);
      head.decay_state();
      head.add_to_state(S(1), q, head.since, g_);
      head.add_to_state(S(-1), c, head.since, y_);
      for (long t = m - 1; t >= 0; --t) {
        S along = 0;
        for (long j = 0; j < vw; ++j) along += to_u[t * vw + j] * e[t * vw + j];
        d_beta[head.at(first + t, 1)] = along;
        std::copy(&y[t * vw], &y[t * vw] + vw, dv + head.at(first + t, vw));
        // q·∂q + c·∂c − k·∂k, summed from the end
        for (long j = 0, place = head.at(first + t, kw); j < kw; ++j, ++place)
          d_decay[place] = S(from_end[j] += double(q[place]) * dq[place] + double(c[place]) * dc[place] - double(k[place]) * dk[place]);
      }
    }
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                       \
  extern "C" void delta_channels_##NAME(const S* q, const S* k, const S* v, const S* beta, const S* decay, const S* c, S* out, long B, long T, \
                                        long H, long kw, long vw, long threads) {                                                             \
    delta<S>(q, k, v, beta, decay, c, out, B, T, H, kw, vw, threads);                                                                         \
  }                                                                                                                                           \
  extern "C" void delta_channels_backward_##NAME(const S* q, const S* k, const S* v, const S* beta, const S* decay, const S* c, const S* g,    \
                                                 S* dq, S* dk, S* dv, S* d_beta, S* d_decay, S* dc, long B, long T, long H, long kw, long vw, \
                                                 long threads) {                                                                              \
    delta_backward<S>(q, k, v, beta, decay, c, g, dq, dk, dv, d_beta, d_decay, dc, B, T, H, kw, vw, threads);                                 \
  }

EXPORT(float, float)
EXPORT(double, double)
