// Requests as a server gets them, one after the other, to be timed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/undisturbed.h"
#include "model/decoder_spec.h"
#include "plan/partition.h"
#include "runahead/engine.h"

namespace runahead {

/// Random ids below `vocab`.
std::vector<int32_t> RandomPrompt(int64_t tokens, int64_t vocab, uint64_t seed);

/// Options that prefill with exactly these cuts: KV-Runahead on the first ranks, or the one rank alone.
PrefillOptions OptionsFor(Topology topology, const Partition& partition);

/// Default number of tokens decoded behind each prompt. There are some on GPUs, whose clocks depend on what ran
/// before, so that a prompt finds them as a server's decoding leaves them; there are none on CPU ranks.
int UsualDecodedTokens(bool on_gpus);

/// Requests of one random prompt and the tokens decoded behind it.
class Requests {
 public:
  /// Decodes at most `decoded_tokens` behind each prompt, as many as the model's context has room for.
  Requests(const Engine& engine, const DecoderSpec& spec, int64_t context, int decoded_tokens, uint64_t seed);

  /// Throws what Session::Prefill throws, as does PrefillUndisturbed.
  PrefillReport Prefill(const PrefillOptions& options) { return session_.Prefill(prompt_, options); }

  /// A prefill that nobody disturbed, or the least disturbed of some seconds; on GPUs the first.
  Sample<PrefillReport> PrefillUndisturbed(const PrefillOptions& options);

  /// Logits behind the prompt. [vocab]
  [[nodiscard]] std::span<const float> logits() const { return session_.logits(); }

  /// Decodes greedily behind the prompt. Returns the milliseconds of each token. Throws DeviceError when the logits
  /// hold a NaN.
  std::vector<double> Decode();

 private:
  int decoded_tokens_;
  double patience_s_;
  Session session_;
  std::vector<int32_t> prompt_;
};

}  // namespace runahead
