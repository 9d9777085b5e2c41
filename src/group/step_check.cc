#include "group/step_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "kv/kv_pages.h"

namespace runahead {
namespace {

/// Collects the first thing that is wrong.
class Findings {
 public:
  template <typename T>
  void Within(const char* name, T value, int64_t begin, int64_t end) {
    const auto number = static_cast<int64_t>(value);
    if (number >= begin && number < end) return;
    Refuse(fmt::format("{}: {} is outside [{}, {})", name, number, begin, end));
  }
  void Refuse(std::string what) {
    if (wrong_.empty()) wrong_ = std::move(what);
  }
  [[nodiscard]] bool ok() const { return wrong_.empty(); }
  [[nodiscard]] Status status() const { return wrong_.empty() ? Status::Ok() : Status::Failed(wrong_); }

 private:
  std::string wrong_;
};

void CheckChunk(const ChunkPlan& chunk, const StepBounds& bounds, Findings& findings) {
  const int64_t positions = chunk.long_angles ? bounds.long_positions : bounds.short_positions;
  if (chunk.tokens.empty()) findings.Refuse("chunk.tokens: there are none");
  findings.Within("chunk.end", chunk.end(), 1, positions + 1);
  if (std::ssize(chunk.pages) < PagesOf(chunk.end())) {
    findings.Refuse(fmt::format("chunk.pages: {} for {} rows", chunk.pages.size(), chunk.end()));
  }
  for (const int32_t token : chunk.tokens) findings.Within("chunk.tokens", token, 0, bounds.vocab);
  for (const int32_t page : chunk.pages) findings.Within("chunk.pages", page, 0, bounds.pages);
}

void CheckGang(const StepPlan& plan, const StepBounds& bounds, Findings& findings) {
  const GangPlan& gang = *plan.gang;
  const auto members = std::ssize(gang.members);
  if (plan.chunks.size() != 1) return findings.Refuse(fmt::format("gang: {} chunks", plan.chunks.size()));
  findings.Within("member", plan.member, 0, members);
  if (!findings.ok()) return;
  const auto member = static_cast<size_t>(plan.member);
  if (gang.members[member] != bounds.rank)
    findings.Refuse(fmt::format("gang: member {} is rank {}", plan.member, gang.members[member]));
  for (const int rank : gang.members) findings.Within("gang.members", rank, 0, bounds.ranks);
  if (std::set<int>(gang.members.begin(), gang.members.end()).size() != gang.members.size()) {
    findings.Refuse("gang.members: a rank comes twice");
  }
  const ChunkPlan& chunk = plan.chunks.front();
  if (chunk.begin != gang.cuts[member] || chunk.end() != gang.cuts[member + 1]) {
    findings.Refuse(fmt::format("gang.cuts: [{}, {}) for a chunk [{}, {})", gang.cuts[member], gang.cuts[member + 1],
                                chunk.begin, chunk.end()));
  }
  const auto lossy = [](WireFormat format) { return format != WireFormat::kExact; };
  if (!bounds.host_memory && std::any_of(gang.wire.begin(), gang.wire.end(), lossy)) {
    findings.Refuse("gang.wire: rows of GPUs travel exact");
  }
  for (const int64_t held : gang.held) findings.Within("gang.held", held, 0, gang.cuts.front() + 1);
  for (const int32_t page : gang.pages[member]) findings.Within("gang.pages", page, 0, bounds.pages);
  // With runahead a member has rows up to its chunk's end, with tsp all. Both ends of a link look at both lists.
  constexpr int64_t kMostPages = int64_t{1} << 24;
  for (size_t i = 0; i < gang.pages.size(); ++i) {
    for (const int32_t page : gang.pages[i]) findings.Within("gang.pages", page, 0, kMostPages);
    const int64_t rows = gang.strategy == Strategy::kRunahead ? gang.cuts[i + 1] : gang.cuts.back();
    if (std::ssize(gang.pages[i]) >= PagesOf(rows)) continue;
    findings.Refuse(fmt::format("gang.pages: {} of member {} for {} rows", gang.pages[i].size(), i, rows));
  }
}

}  // namespace

Status CheckStepPlan(const StepPlan& plan, const StepBounds& bounds) {
  Findings findings;
  for (const SamplerPlan& sampler : plan.samplers) {
    for (const auto& [id, bias] : sampler.logit_bias) findings.Within("sampler.logit_bias", id, 0, bounds.vocab);
    for (const int32_t id : sampler.prompt) findings.Within("sampler.prompt", id, 0, bounds.vocab);
    for (const int32_t id : sampler.drawn) findings.Within("sampler.drawn", id, 0, bounds.vocab);
  }
  for (const PageCopy& copy : plan.copies) {
    findings.Within("copy.from", copy.from, 0, bounds.pages);
    findings.Within("copy.to", copy.to, 0, bounds.pages);
    findings.Within("copy.rows", copy.rows, 0, kPageRows + 1);
  }
  for (const ChunkPlan& chunk : plan.chunks) CheckChunk(chunk, bounds, findings);
  if (plan.gang != nullptr) CheckGang(plan, bounds, findings);
  return findings.status();
}

Status CheckStepResult(const StepResult& result, int rank, const std::vector<SequenceId>& draws, int64_t vocab) {
  Findings findings;
  if (result.rank != rank) findings.Refuse(fmt::format("rank: {} for {}", result.rank, rank));
  const size_t expected = !result.error.empty() || result.stopped ? 0 : draws.size();
  if (result.drawn.size() != expected) {
    findings.Refuse(fmt::format("drawn: {} tokens for {}", result.drawn.size(), expected));
  }
  for (size_t i = 0; i < result.drawn.size() && findings.ok(); ++i) {
    const Drawn& drawn = result.drawn[i];
    if (drawn.sequence != draws[i])
      findings.Refuse(fmt::format("drawn.sequence: {} for {}", drawn.sequence, draws[i]));
    if (!drawn.error.empty()) continue;
    findings.Within("token.id", drawn.token.id, 0, vocab);
    for (const TokenLogprob& token : drawn.likely) findings.Within("token.id", token.id, 0, vocab);
  }
  for (const double seconds : {result.begin_s, result.seconds, result.wait_s}) {
    if (!std::isfinite(seconds)) findings.Refuse(fmt::format("times: {} s", seconds));
  }
  if (result.seconds < 0 || result.wait_s < 0 || result.bytes_sent < 0) findings.Refuse("times: they are below 0");
  return findings.status();
}

}  // namespace runahead
