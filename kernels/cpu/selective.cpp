// The selective scan h_t = exp(delta_t a) h_{t-1} + delta_t b_t v_t, y_t = c_t h_t, and its gradients.
// A piece of work is up to SCAN_CHANNELS channels of one sequence, in chunks of tokens whose inputs stay in the first cache. The states of a
// channel are taken one after the other, each through all tokens of a chunk, in registers: no scratch grows with the number of states.
#include <algorithm>
#include <type_traits>

#include "buffer.h"
#include "elementary.h"
#include "parallel.h"
#include "sizes.h"
#include "vectors.h"

namespace {

constexpr long CHUNK = SCAN_CHUNK;  // tokens between two stored states
constexpr long GROUP = 16;          // channels that are padded to

template <class S>
struct Arguments {
  const S *delta, *a, *b, *c, *v;
  long B, T, copies, E, N;

  long blocks() const { return (E + SCAN_CHANNELS - 1) / SCAN_CHANNELS; }
  long chunks() const { return (T + CHUNK - 1) / CHUNK; }
};

// GROUPS groups of channels of one sequence: the rows of a chunk, padded with zeros, whose states stay zero.
template <class S, int GROUPS>
struct Piece {
  static constexpr int V = GROUPS * GROUP / LANES<S>;
  static constexpr long WIDTH = GROUPS * GROUP;
  using Row = Vector<S>[V];

  static void get(const S* from, Row& row) {
    for (int i = 0; i < V; ++i) row[i] = load(from + i * LANES<S>);
  }
  static void put(S* to, const Row& row) {
    for (int i = 0; i < V; ++i) store(to + i * LANES<S>, row[i]);
  }

  const Arguments<S>& given;
  long batch, from, w, first = 0, count = 0;  // the tokens of the current chunk
  Buffer<S> scratch, states;
  S *delta, *keep, *inputs, *made;  // rows of the chunk: delta, exp(delta a) of one state; delta v and y, or g, of each input

  Piece(const Arguments<S>& given, long batch, long from)
      : given(given), batch(batch), from(from), w(std::min(SCAN_CHANNELS, given.E - from)), scratch((2 + 2 * given.copies) * CHUNK * WIDTH),
        states(given.copies * given.N * WIDTH, S(0)), delta(scratch.data()), keep(delta + CHUNK * WIDTH), inputs(keep + CHUNK * WIDTH),
        made(inputs + given.copies * CHUNK * WIDTH) {}

  S* input(long copy) { return inputs + copy * CHUNK * WIDTH; }
  S* result(long copy) { return made + copy * CHUNK * WIDTH; }
  S* state(long copy, long n) { return states.data() + (copy * given.N + n) * WIDTH; }
  long by_token(long t) const { return (batch * given.T + first + t) * given.E + from; }
  long value(long t, long copy) const { return ((batch * given.T + first + t) * given.copies + copy) * given.E + from; }
  long weight(long t, long n) const { return (batch * given.T + first + t) * given.N + n; }

  void padded(const S* row, S* out) const {
    std::copy(row, row + w, out);
    std::fill(out + w, out + WIDTH, S(0));
  }

  void begin(long chunk) {
    first = chunk * CHUNK;
    count = std::min(CHUNK, given.T - first);
    for (long t = 0; t < count; ++t) {
      padded(given.delta + by_token(t), delta + t * WIDTH);
      for (long copy = 0; copy < given.copies; ++copy) {
        S* row = input(copy) + t * WIDTH;
        padded(given.v + value(t, copy), row);
        for (long i = 0; i < WIDTH; ++i) row[i] *= delta[t * WIDTH + i];
      }
    }
  }

  // the decays of state n in the chunk
  void decays(long n) {
    alignas(64) S rates[WIDTH];
    padded(given.a + n * given.E + from, rates);
    for (long i = 0; i < WIDTH; ++i) rates[i] *= UNIT<S>;
    for (long at = 0; at < count * WIDTH; at += WIDTH)
#pragma GCC unroll 8
      for (int i = 0; i < V; ++i) {
        const long lane = i * LANES<S>;
        store(keep + at + lane, falling(load(delta + at + lane) * load(rates + lane)));
      }
  }

  void forward(long copy, long n) {
    Row h;
    get(state(copy, n), h);
    const S *kept = keep, *x = input(copy), *enters = given.b + weight(0, n), *reads = given.c + weight(0, n);
    S* y = result(copy);
    for (long t = 0; t < count; ++t, kept += WIDTH, x += WIDTH, y += WIDTH, enters += given.N, reads += given.N) {
      const S enter = *enters, read = *reads;
#pragma GCC unroll 8
      for (int i = 0; i < V; ++i) {
        h[i] = load(kept + i * LANES<S>) * h[i] + enter * load(x + i * LANES<S>);
        store(y + i * LANES<S>, load(y + i * LANES<S>) + read * h[i]);
      }
    }
    put(state(copy, n), h);
  }
};

// starts [B, chunks, c, N, E] receives the state before each chunk
template <class S, int GROUPS>
void forward_piece(const Arguments<S>& given, long batch, long from, S* y, S* starts) {
  Piece<S, GROUPS> piece(given, batch, from);
  const long copies = given.copies, N = given.N;
  for (long chunk = 0; chunk < given.chunks(); ++chunk) {
    piece.begin(chunk);
    std::fill(piece.made, piece.made + copies * CHUNK * piece.WIDTH, S(0));
    for (long n = 0; n < N; ++n) {
      piece.decays(n);
      for (long copy = 0; copy < copies; ++copy) {
        const S* h = piece.state(copy, n);
        std::copy(h, h + piece.w, starts + (((batch * given.chunks() + chunk) * copies + copy) * N + n) * given.E + from);
        piece.forward(copy, n);
      }
    }
    for (long t = 0; t < piece.count; ++t)
      for (long copy = 0; copy < copies; ++copy) {
        const S* row = piece.result(copy) + t * piece.WIDTH;
        std::copy(row, row + piece.w, y + piece.value(t, copy));
      }
  }
}

template <class S>
struct Gradients {
  S *delta, *a, *b, *c, *v;  // those that are sums over blocks or sequences come in parts: a [B, N, E], b and c [blocks, B, T, N]
};

template <class S, int GROUPS>
struct Backward : Piece<S, GROUPS> {
  using Base = Piece<S, GROUPS>;
  using Row = typename Base::Row;
  using Base::WIDTH, Base::V, Base::given, Base::batch, Base::from, Base::w, Base::count;

  const S *starts, *g;
  Gradients<S> out;
  Buffer<S> before, to_inputs, to_delta, to_state;  // states of one n; gradients by token; dL/dh of each state after the chunk
  Buffer<double> to_a;

  Backward(const Arguments<S>& given, long batch, long from, const S* starts, const S* g, const Gradients<S>& out)
      : Base(given, batch, from), starts(starts), g(g), out(out), before((CHUNK + 1) * WIDTH), to_inputs(given.copies * CHUNK * WIDTH),
        to_delta(CHUNK * WIDTH), to_state(given.copies * given.N * WIDTH, S(0)), to_a(given.N * WIDTH, 0.0) {}

  void run() {
    for (long chunk = given.chunks() - 1; chunk >= 0; --chunk) {
      this->begin(chunk);
      for (long t = 0; t < count; ++t)
        for (long copy = 0; copy < given.copies; ++copy) this->padded(g + this->value(t, copy), this->result(copy) + t * WIDTH);
      std::fill(to_inputs.begin(), to_inputs.end(), S(0));
      std::fill(to_delta.begin(), to_delta.end(), S(0));
      for (long n = 0; n < given.N; ++n) {
        this->decays(n);
        for (long copy = 0; copy < given.copies; ++copy) {
          sweep(chunk, copy, n);
          back(copy, n);
        }
      }
      finish();
    }
    for (long n = 0; n < given.N; ++n)
      for (long i = 0; i < w; ++i) out.a[(batch * given.N + n) * given.E + from + i] = S(to_a[n * WIDTH + i]);
  }

  // the states of one input again: row t of `before` is that before token t
  void sweep(long chunk, long copy, long n) {
    this->padded(starts + (((batch * given.chunks() + chunk) * given.copies + copy) * given.N + n) * given.E + from, before.data());
    Row h;
    this->get(before.data(), h);
    const S *kept = this->keep, *x = this->input(copy), *enters = given.b + this->weight(0, n);
    S* now = before.data() + WIDTH;
    for (long t = 0; t < count; ++t, kept += WIDTH, x += WIDTH, now += WIDTH, enters += given.N) {
      const S enter = *enters;
#pragma GCC unroll 8
      for (int i = 0; i < V; ++i) {
        h[i] = load(kept + i * LANES<S>) * h[i] + enter * load(x + i * LANES<S>);
        store(now + i * LANES<S>, h[i]);
      }
    }
  }

  void back(long copy, long n) {
    alignas(64) S padded_rates[WIDTH];
    this->padded(given.a + n * given.E + from, padded_rates);
    Row adjoint, rates, to_rates = {};
    S* to_states = to_state.data() + (copy * given.N + n) * WIDTH;
    this->get(to_states, adjoint);
    this->get(padded_rates, rates);
    const long part = from / SCAN_CHANNELS * given.B * given.T * given.N;
    for (long t = count - 1; t >= 0; --t) {
      const long at = this->weight(t, n), row = t * WIDTH;
      const S enters = given.b[at], reads = given.c[at];
      const S *kept = this->keep + row, *x = this->input(copy) + row, *upstream = this->result(copy) + row;
      const S *old = before.data() + row, *step = this->delta + row;
      S *into = to_inputs.data() + copy * CHUNK * WIDTH + row, *into_delta = to_delta.data() + row;
      Vector<S> sum_b = {}, sum_c = {};
#pragma GCC unroll 8
      for (int i = 0; i < V; ++i) {
        const long lane = i * LANES<S>;
        const Vector<S> g_t = load(upstream + lane), d = adjoint[i] + reads * g_t;
        sum_c += load(old + WIDTH + lane) * g_t;
        sum_b += d * load(x + lane);
        store(into + lane, load(into + lane) + enters * d);
        adjoint[i] = d * load(kept + lane);
        const Vector<S> exponent = adjoint[i] * load(old + lane);
        store(into_delta + lane, load(into_delta + lane) + exponent * rates[i]);
        to_rates[i] += exponent * load(step + lane);
      }
      const Vector<S> sums = totals<S>(sum_b, sum_c);
      out.b[part + at] = (copy ? out.b[part + at] : S(0)) + sums[0];
      out.c[part + at] = (copy ? out.c[part + at] : S(0)) + sums[LANES<S> - 1];
    }
    this->put(to_states, adjoint);
    for (long i = 0; i < WIDTH; ++i) to_a[n * WIDTH + i] += to_rates[i / LANES<S>][i % LANES<S>];
  }

  // of v and delta, from those of delta v and of the exponents
  void finish() {
    for (long t = 0; t < count; ++t) {
      S *sum = to_delta.data() + t * WIDTH, *step = this->delta + t * WIDTH;
      for (long copy = 0; copy < given.copies; ++copy) {
        const long at = this->value(t, copy);
        const S* to_input = to_inputs.data() + (copy * CHUNK + t) * WIDTH;
        for (long i = 0; i < w; ++i) {
          out.v[at + i] = to_input[i] * step[i];
          sum[i] += to_input[i] * given.v[at + i];
        }
      }
      std::copy(sum, sum + w, out.delta + this->by_token(t));
    }
  }
};

// work(GROUPS) for the groups of a block of w channels, a constant
template <class F>
void of_width(long w, F work) {
  static_assert(SCAN_CHANNELS == 4 * GROUP, "up to four groups");
  if (w <= GROUP) return work(std::integral_constant<int, 1>());
  if (w <= 2 * GROUP) return work(std::integral_constant<int, 2>());
  if (w <= 3 * GROUP) return work(std::integral_constant<int, 3>());
  work(std::integral_constant<int, 4>());
}

template <class S, class F>
void by_pieces(const Arguments<S>& given, long threads, F work) {
  const long blocks = given.blocks();
  parallel(given.B * blocks, threads, [&](long piece) {
    const long from = piece % blocks * SCAN_CHANNELS;
    of_width(given.E - from, [&](auto groups) { work(groups, piece / blocks, from); });
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                 \
  extern "C" void selective_##NAME(const S* delta, const S* a, const S* b, const S* c, const S* v, S* y, S* starts, long B, long T,      \
                                   long copies, long E, long N, long threads) {                                                         \
    Arguments<S> given{delta, a, b, c, v, B, T, copies, E, N};                                                                          \
    by_pieces(given, threads, [&](auto groups, long batch, long from) { forward_piece<S, groups()>(given, batch, from, y, starts); });            \
  }                                                                                                                                     \
  extern "C" void selective_backward_##NAME(const S* delta, const S* a, const S* b, const S* c, const S* v, const S* starts, const S* g, \
                                            S* d_delta, S* da, S* db, S* dc, S* dv, long B, long T, long copies, long E, long N,        \
                                            long threads) {                                                                             \
    Arguments<S> given{delta, a, b, c, v, B, T, copies, E, N};                                                                          \
    Gradients<S> out{d_delta, da, db, dc, dv};                                                                                          \
    by_pieces(given, threads, [&](auto groups, long batch, long from) { Backward<S, groups()>(given, batch, from, starts, g, out).run(); });      \
  }

EXPORT(float, float)
EXPORT(double, double)
