#include "wire/step_messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <type_traits>

#include "wire/bytes.h"

namespace runahead {
namespace {

// Every structure is taken apart by name: a field more does not compile until it travels, too.

void Put(ByteWriter& out, const ChunkPlan& chunk) {
  const auto& [sequence, begin, tokens, pages, long_angles, draw] = chunk;
  out.Put(sequence);
  out.Put(begin);
  out.PutList(tokens);
  out.PutList(pages);
  out.Put(static_cast<uint8_t>(long_angles));
  out.Put(static_cast<uint8_t>(draw));
}

ChunkPlan GetChunk(ByteReader& in) {
  ChunkPlan chunk;
  chunk.sequence = in.Get<uint64_t>("chunk.sequence");
  chunk.begin = in.Get<int64_t>("chunk.begin");
  chunk.tokens = in.GetList<int32_t>("chunk.tokens");
  chunk.pages = in.GetList<int32_t>("chunk.pages");
  chunk.long_angles = in.GetBool("chunk.long_angles");
  chunk.draw = in.GetBool("chunk.draw");
  if (chunk.begin < 0 || chunk.begin > INT64_MAX / 2) in.Refuse(fmt::format("chunk.begin: no value {}", chunk.begin));
  return chunk;
}

void Put(ByteWriter& out, const GangPlan& gang) {
  const auto& [members, strategy, topology, cuts, held, pages, wire] = gang;
  out.PutList(members);
  out.Put(strategy);
  out.Put(topology);
  out.PutList(cuts);
  out.PutList(held);
  out.PutCount(pages.size());
  for (const PageList& list : pages) out.PutList(list);
  out.PutCount(wire.size());
  for (const WireFormat format : wire) out.Put(format);
}

GangPlan GetGang(ByteReader& in) {
  GangPlan gang;
  gang.members = in.GetList<int>("gang.members");
  gang.strategy = in.GetEnum("gang.strategy", Strategy::kTspCausal);
  gang.topology = in.GetEnum("gang.topology", Topology::kDirect);
  gang.cuts = in.GetList<int64_t>("gang.cuts");
  gang.held = in.GetList<int64_t>("gang.held");
  gang.pages.resize(in.GetCount(sizeof(uint64_t), "gang.pages"));
  for (PageList& list : gang.pages) list = in.GetList<int32_t>("gang.pages");
  gang.wire.resize(in.GetCount(sizeof(WireFormat), "gang.wire"));
  for (WireFormat& format : gang.wire) format = in.GetEnum("gang.wire", WireFormat::kInt4);
  const size_t members = gang.members.size();
  if (members == 0 || gang.cuts.size() != members + 1 || gang.held.size() != members ||
      gang.pages.size() != members) {
    in.Refuse(fmt::format("gang: {} members, {} cuts, {} rows held, {} lists of pages", members, gang.cuts.size(),
                          gang.held.size(), gang.pages.size()));
  } else if (!gang.wire.empty() && gang.wire.size() != members * members) {
    in.Refuse(fmt::format("gang.wire: {} formats for {} members", gang.wire.size(), members));
  } else if (gang.cuts.front() < 0 ||
             std::adjacent_find(gang.cuts.begin(), gang.cuts.end(), std::greater_equal<>()) != gang.cuts.end()) {
    in.Refuse("gang.cuts: they do not rise");
  }
  return gang;
}

void Put(ByteWriter& out, const SamplingOptions& options) {
  const auto& [temperature, top_k, top_p, seed, min_p, repetition, presence, frequency] = options;
  out.Put(temperature);
  out.Put(top_k);
  out.Put(top_p);
  out.Put(seed);
  out.Put(min_p);
  out.Put(repetition);
  out.Put(presence);
  out.Put(frequency);
}

SamplingOptions GetSampling(ByteReader& in) {
  SamplingOptions options;
  options.temperature = in.Get<double>("sampler.temperature");
  options.top_k = in.Get<int>("sampler.top_k");
  options.top_p = in.Get<double>("sampler.top_p");
  options.seed = in.Get<uint64_t>("sampler.seed");
  options.min_p = in.Get<double>("sampler.min_p");
  options.repetition_penalty = in.Get<double>("sampler.repetition_penalty");
  options.presence_penalty = in.Get<double>("sampler.presence_penalty");
  options.frequency_penalty = in.Get<double>("sampler.frequency_penalty");
  return options;
}

void Put(ByteWriter& out, const SamplerPlan& sampler) {
  const auto& [sequence, options, logit_bias, logprobs, prompt, drawn] = sampler;
  out.Put(sequence);
  Put(out, options);
  out.PutCount(logit_bias.size());
  for (const auto& [id, bias] : logit_bias) {
    out.Put(id);
    out.Put(bias);
  }
  out.Put(logprobs);
  out.PutList(prompt);
  out.PutList(drawn);
}

SamplerPlan GetSampler(ByteReader& in) {
  SamplerPlan sampler;
  sampler.sequence = in.Get<uint64_t>("sampler.sequence");
  sampler.options = GetSampling(in);
  sampler.logit_bias.resize(in.GetCount(sizeof(int32_t) + sizeof(float), "sampler.logit_bias"));
  for (auto& [id, bias] : sampler.logit_bias) {
    id = in.Get<int32_t>("sampler.logit_bias");
    bias = in.Get<float>("sampler.logit_bias");
  }
  sampler.logprobs = in.Get<int>("sampler.logprobs");
  sampler.prompt = in.GetList<int32_t>("sampler.prompt");
  sampler.drawn = in.GetList<int32_t>("sampler.drawn");
  return sampler;
}

void Put(ByteWriter& out, const PageCopy& copy) {
  const auto& [from, to, rows] = copy;
  out.Put(from);
  out.Put(to);
  out.Put(rows);
}

PageCopy GetCopy(ByteReader& in) {
  PageCopy copy;
  copy.from = in.Get<int32_t>("copy.from");
  copy.to = in.Get<int32_t>("copy.to");
  copy.rows = in.Get<int64_t>("copy.rows");
  return copy;
}

void Put(ByteWriter& out, const TokenLogprob& token) {
  const auto& [id, logprob] = token;
  out.Put(id);
  out.Put(logprob);
}

TokenLogprob GetToken(ByteReader& in) {
  TokenLogprob token;
  token.id = in.Get<int32_t>("token.id");
  token.logprob = in.Get<float>("token.logprob");
  return token;
}

void Put(ByteWriter& out, const Drawn& drawn);
void Put(ByteWriter& out, const TimelineEvent& event);

/// Lists of structures, each of which takes at least `bytes_each`.
template <typename T>
void PutAll(ByteWriter& out, const std::vector<T>& values) {
  out.PutCount(values.size());
  for (const T& value : values) Put(out, value);
}

template <typename Read>
auto GetAll(ByteReader& in, size_t bytes_each, const char* name, Read&& read) {
  std::vector<std::invoke_result_t<Read, ByteReader&>> values;
  for (size_t count = in.GetCount(bytes_each, name); count > 0 && in.ok(); --count) values.push_back(read(in));
  return values;
}

constexpr size_t kListBytes = sizeof(uint64_t);  // of an empty list
constexpr size_t kChunkBytes = 8 + 8 + 2 * kListBytes + 2;
constexpr size_t kSamplerBytes = 8 + 2 * 4 + 7 * 8 + 3 * kListBytes;
constexpr size_t kCopyBytes = 16;
constexpr size_t kTokenBytes = 8;
constexpr size_t kDrawnBytes = 8 + kTokenBytes + 2 * kListBytes;

void Put(ByteWriter& out, const Drawn& drawn) {
  const auto& [sequence, token, likely, error] = drawn;
  out.Put(sequence);
  Put(out, token);
  PutAll(out, likely);
  out.PutText(error);
}

Drawn GetDrawn(ByteReader& in) {
  Drawn drawn;
  drawn.sequence = in.Get<uint64_t>("drawn.sequence");
  drawn.token = GetToken(in);
  drawn.likely = GetAll(in, kTokenBytes, "drawn.likely", GetToken);
  drawn.error = in.GetText("drawn.error");
  return drawn;
}

constexpr size_t kEventBytes = 2 * 4 + sizeof(Activity) + 2 * 8 + 8 + 4;

void Put(ByteWriter& out, const TimelineEvent& event) {
  const auto& [rank, layer, activity, begin_ms, end_ms, bytes, peer] = event;
  out.Put(rank);
  out.Put(layer);
  out.Put(activity);
  out.Put(begin_ms);
  out.Put(end_ms);
  out.Put(static_cast<uint64_t>(bytes));
  out.Put(peer);
}

TimelineEvent GetEvent(ByteReader& in) {
  TimelineEvent event;
  event.rank = in.Get<int>("timeline.rank");
  event.layer = in.Get<int>("timeline.layer");
  event.activity = in.GetEnum("timeline.activity", Activity::kReceive);
  event.begin_ms = in.Get<double>("timeline.begin_ms");
  event.end_ms = in.Get<double>("timeline.end_ms");
  event.bytes = in.Get<uint64_t>("timeline.bytes");
  event.peer = in.Get<int>("timeline.peer");
  return event;
}

}  // namespace

void PutTimeline(ByteWriter& out, const std::vector<TimelineEvent>& timeline) { PutAll(out, timeline); }

std::vector<TimelineEvent> GetTimeline(ByteReader& in) { return GetAll(in, kEventBytes, "timeline", GetEvent); }

std::string EncodeStepPlan(const StepPlan& plan) {
  const auto& [step, ended, samplers, copies, chunks, gang, member, record_timeline, stop] = plan;
  ByteWriter out;
  out.Put(step);
  out.PutList(ended);
  PutAll(out, samplers);
  PutAll(out, copies);
  PutAll(out, chunks);
  out.Put(static_cast<uint8_t>(gang != nullptr));
  if (gang != nullptr) Put(out, *gang);
  out.Put(member);
  out.Put(static_cast<uint8_t>(record_timeline));
  return out.Take();
}

Status DecodeStepPlan(std::string_view bytes, StepPlan& plan) {
  ByteReader in(bytes);
  StepPlan read;
  read.step = in.Get<uint64_t>("step");
  read.ended = in.GetList<SequenceId>("ended");
  read.samplers = GetAll(in, kSamplerBytes, "samplers", GetSampler);
  read.copies = GetAll(in, kCopyBytes, "copies", GetCopy);
  read.chunks = GetAll(in, kChunkBytes, "chunks", GetChunk);
  if (in.GetBool("gang")) read.gang = std::make_shared<const GangPlan>(GetGang(in));
  read.member = in.Get<int>("member");
  read.record_timeline = in.GetBool("record_timeline");
  read.stop = std::make_shared<std::atomic<bool>>(false);
  const int64_t members = read.gang == nullptr ? 1 : std::ssize(read.gang->members);
  if (read.member < 0 || read.member >= members) in.Refuse(fmt::format("member: {} of {}", read.member, members));
  if (read.gang != nullptr && read.chunks.size() != 1) in.Refuse(fmt::format("gang: {} chunks", read.chunks.size()));
  if (Status end = in.End(); !end.ok()) return end;
  plan = std::move(read);
  return Status::Ok();
}

std::string EncodeStepResult(const StepResult& result) {
  const auto& [step, rank, stopped, error, device_failed, link_failed, lost, drawn, begin_s, seconds, wait_s,
               bytes_sent, wire_bound, timeline] = result;
  ByteWriter out;
  out.Put(step);
  out.Put(rank);
  out.Put(static_cast<uint8_t>(stopped));
  out.PutText(error);
  out.Put(static_cast<uint8_t>(device_failed));
  out.Put(static_cast<uint8_t>(link_failed));
  PutAll(out, drawn);
  out.Put(begin_s);
  out.Put(seconds);
  out.Put(wait_s);
  out.Put(bytes_sent);
  out.Put(wire_bound);
  PutTimeline(out, timeline);
  return out.Take();
}

Status DecodeStepResult(std::string_view bytes, StepResult& result) {
  ByteReader in(bytes);
  StepResult read;
  read.step = in.Get<uint64_t>("step");
  read.rank = in.Get<int>("rank");
  read.stopped = in.GetBool("stopped");
  read.error = in.GetText("error");
  read.device_failed = in.GetBool("device_failed");
  read.link_failed = in.GetBool("link_failed");
  read.drawn = GetAll(in, kDrawnBytes, "drawn", GetDrawn);
  read.begin_s = in.Get<double>("begin_s");
  read.seconds = in.Get<double>("seconds");
  read.wait_s = in.Get<double>("wait_s");
  read.bytes_sent = in.Get<int64_t>("bytes_sent");
  read.wire_bound = in.Get<double>("wire_bound");
  read.timeline = GetTimeline(in);
  if (Status end = in.End(); !end.ok()) return end;
  result = std::move(read);
  return Status::Ok();
}

}  // namespace runahead
