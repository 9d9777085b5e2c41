// How much arithmetic a chunk of a prompt is: the yardstick of every share of a peak.
#pragma once

#include <cstdint>

#include "model/decoder.h"
#include "model/decoder_spec.h"

namespace runahead {

/// Floating-point operations, a multiplication and an addition being two. Norms, activations, rope and softmax are
/// left out, as is usual.
struct ModelFlops {
  double linear = 0;     // projections, MLP, head
  double attention = 0;  // q.k and weights times values, of the visible positions only

  [[nodiscard]] double total() const { return linear + attention; }
  ModelFlops& operator+=(const ModelFlops& other) {
    linear += other.linear;
    attention += other.attention;
    return *this;
  }
};

/// Pairs of a query in [begin, end) and a position it sees: its own and those before it, within `window` (0: all).
double VisiblePairs(int64_t begin, int64_t end, int64_t window);

/// What Decoder::Forward computes for the chunk [begin, end): causal, and of the last layer only what is asked for.
ModelFlops ChunkFlops(const DecoderSpec& spec, int64_t begin, int64_t end, LastLayer last_layer);

/// The model FLOPs of a prompt by which engines are compared: every token through every layer, causal, and the last
/// one through the head. Latent attention counts as each head's own keys and values, which is less than the vectors.
/// Decoder::Forward computes less, of the last layer only what the first token needs.
ModelFlops PromptFlops(const DecoderSpec& spec, int64_t tokens);

/// Whether the queries of rows [begin, end) of a sequence attend in fewer FLOPs to each head's own keys and values,
/// made of the latent vectors of all rows before `end`, than to the vectors themselves with queries as wide as these.
bool ExpandingIsLess(const DecoderSpec& spec, int64_t begin, int64_t end);

}  // namespace runahead
