#include "tune/requests.h"

#include <algorithm>
#include <chrono>
#include <random>

#include "base/deadline.h"
#include "engine/engine_state.h"
#include "worker/sampler.h"

namespace runahead {
namespace {

constexpr double kRequestPatienceS = 2;  // longest wait, s, for an undisturbed run of CPU ranks

int TokensWithRoom(const DecoderSpec& spec, int64_t context, int decoded_tokens) {
  return static_cast<int>(std::clamp<int64_t>(spec.max_positions - context - 1, 0, decoded_tokens));
}

}  // namespace

std::vector<int32_t> RandomPrompt(int64_t tokens, int64_t vocab, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> prompt(static_cast<size_t>(tokens));
  for (int32_t& id : prompt) id = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab));
  return prompt;
}

PrefillOptions OptionsFor(Topology topology, const Partition& partition) {
  PrefillOptions options;
  options.strategy = partition.ranks() == 1 ? Strategy::kSingle : Strategy::kRunahead;
  options.topology = topology;
  options.ranks = partition.ranks();
  options.partition.kind = PartitionKind::kManual;
  for (int rank = 0; rank < partition.ranks(); ++rank) {
    options.partition.fractions.push_back(static_cast<double>(partition.rows(rank)));
  }
  return options;
}

int UsualDecodedTokens(bool on_gpus) {
  constexpr int kOnGpus = 64;
  return on_gpus ? kOnGpus : 0;
}

Requests::Requests(const Engine& engine, const DecoderSpec& spec, int64_t context, int decoded_tokens, uint64_t seed)
    : decoded_tokens_(TokensWithRoom(spec, context, decoded_tokens)),
      patience_s_(StateOf(engine)->on_gpus() ? 0 : kRequestPatienceS),
      session_(engine.NewSession(context + (decoded_tokens_ > 0 ? decoded_tokens_ + 1 : 0))),
      prompt_(RandomPrompt(context, spec.vocab, seed)) {}

Sample<PrefillReport> Requests::PrefillUndisturbed(const PrefillOptions& options) {
  return LeastDisturbed([&] { return Prefill(options); }, patience_s_);
}

std::vector<double> Requests::Decode() {
  std::vector<double> token_ms;
  if (decoded_tokens_ == 0) return token_ms;
  int32_t token = LikeliestToken(session_.logits());
  for (int i = 0; i <= decoded_tokens_; ++i) {
    const auto begin = Clock::now();
    token = session_.AppendGreedy(token, i < decoded_tokens_);
    // Nothing was enqueued ahead of the first one.
    if (i > 0) token_ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
  }
  return token_ms;
}

}  // namespace runahead
