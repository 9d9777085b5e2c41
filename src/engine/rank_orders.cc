#include "engine/rank_orders.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "wire/bytes.h"
#include "wire/step_messages.h"

namespace runahead {
namespace {

constexpr size_t kEmptyListBytes = sizeof(uint64_t);

/// Takes `read` where `in` has been read to its end and all made sense.
template <typename T>
Status Finish(ByteReader& in, T read, T& to) {
  if (Status end = in.End(); !end.ok()) return end;
  to = std::move(read);
  return Status::Ok();
}

void Put(ByteWriter& out, const Stretches& seen) {
  out.PutList(seen.before_s);
  out.PutList(seen.layer_s);
  out.PutList(seen.finish_s);
}

std::vector<double> GetSeconds(ByteReader& in, const char* name) {
  std::vector<double> seconds = in.GetList<double>(name);
  const auto wrong = std::find_if(seconds.begin(), seconds.end(), [](double s) { return !(s >= 0 && s < 1e9); });
  if (wrong != seconds.end()) in.Refuse(fmt::format("{}: {} s", name, *wrong));
  return seconds;
}

}  // namespace

std::string Encode(const PhaseOrder& order) {
  ByteWriter out;
  out.Put(order.session);
  out.Put(order.capacity);
  out.PutList(order.tokens);
  out.Put(order.strategy);
  out.Put(order.topology);
  out.PutList(order.members);
  out.PutList(order.cuts);
  out.Put(order.links);
  out.Put(static_cast<uint8_t>(order.record_timeline));
  out.PutCount(order.wire.size());
  for (const WireFormat format : order.wire) out.Put(format);
  return out.Take();
}

Status Decode(std::string_view bytes, PhaseOrder& order) {
  ByteReader in(bytes);
  PhaseOrder read;
  read.session = in.Get<uint64_t>("session");
  read.capacity = in.Get<int64_t>("capacity");
  read.tokens = in.GetList<int32_t>("tokens");
  read.strategy = in.GetEnum("strategy", Strategy::kTspCausal);
  read.topology = in.GetEnum("topology", Topology::kDirect);
  read.members = in.GetList<int>("members");
  read.cuts = in.GetList<int64_t>("cuts");
  read.links = in.Get<uint64_t>("links");
  read.record_timeline = in.GetBool("record_timeline");
  read.wire.resize(in.GetCount(sizeof(WireFormat), "wire"));
  for (WireFormat& format : read.wire) format = in.GetEnum("wire", WireFormat::kInt4);
  if (!read.wire.empty() && read.wire.size() != read.members.size() * read.members.size()) {
    in.Refuse(fmt::format("wire: {} formats for {} members", read.wire.size(), read.members.size()));
  }
  const bool rise = std::adjacent_find(read.cuts.begin(), read.cuts.end(), std::greater_equal<>()) == read.cuts.end();
  if (read.members.empty() || read.cuts.size() != read.members.size() + 1 || !rise || read.cuts.front() != 0 ||
      read.cuts.back() != std::ssize(read.tokens)) {
    in.Refuse(fmt::format("cuts: {} for {} members and {} tokens, or they do not rise", read.cuts.size(),
                          read.members.size(), read.tokens.size()));
  }
  return Finish(in, std::move(read), order);
}

std::string Encode(const PhaseAnswer& answer) {
  ByteWriter out;
  PutTimeline(out, answer.timeline);
  out.PutList(answer.logits);
  out.Put(answer.bytes_sent);
  out.Put(answer.wire_bound);
  return out.Take();
}

Status Decode(std::string_view bytes, PhaseAnswer& answer) {
  ByteReader in(bytes);
  PhaseAnswer read;
  read.timeline = GetTimeline(in);
  read.logits = in.GetList<float>("logits");
  read.bytes_sent = in.Get<uint64_t>("bytes_sent");
  read.wire_bound = in.Get<double>("wire_bound");
  return Finish(in, std::move(read), answer);
}

std::string Encode(const TokenOrder& order) {
  ByteWriter out;
  out.Put(order.session);
  out.Put(order.capacity);
  out.Put(order.rank);
  out.Put(order.position);
  out.Put(order.token);
  return out.bytes();
}

Status Decode(std::string_view bytes, TokenOrder& order) {
  ByteReader in(bytes);
  TokenOrder read;
  read.session = in.Get<uint64_t>("session");
  read.capacity = in.Get<int64_t>("capacity");
  read.rank = in.Get<int>("rank");
  read.position = in.Get<int64_t>("position");
  read.token = in.Get<int32_t>("token");
  return Finish(in, read, order);
}

std::string Encode(const ShortRunsOrder& order) {
  ByteWriter out;
  out.Put(order.probe);
  out.Put(order.longest);
  out.PutList(order.members);
  out.Put(order.run.begin);
  out.Put(order.run.end);
  out.Put(order.run.last_layer);
  out.Put(static_cast<uint8_t>(order.run.dense));
  out.Put(order.times);
  return out.Take();
}

Status Decode(std::string_view bytes, ShortRunsOrder& order) {
  ByteReader in(bytes);
  ShortRunsOrder read;
  read.probe = in.Get<uint64_t>("probe");
  read.longest = in.Get<int64_t>("longest");
  read.members = in.GetList<int>("members");
  read.run.begin = in.Get<int64_t>("run.begin");
  read.run.end = in.Get<int64_t>("run.end");
  read.run.last_layer = in.Get<int>("run.last_layer");
  read.run.dense = in.GetBool("run.dense");
  read.times = in.Get<int>("times");
  if (read.run.begin < 0 || read.run.begin >= read.run.end || read.run.end > read.longest) {
    in.Refuse(fmt::format("run: rows [{}, {}) of {}", read.run.begin, read.run.end, read.longest));
  }
  if (read.run.last_layer < 0) in.Refuse(fmt::format("run.last_layer: {}", read.run.last_layer));
  if (read.times < 1) in.Refuse(fmt::format("times: {}", read.times));
  return Finish(in, std::move(read), order);
}

std::string Encode(const HopsOrder& order) {
  ByteWriter out;
  out.Put(order.probe);
  out.Put(order.longest);
  out.PutList(order.members);
  out.Put(order.links);
  out.PutCount(order.pairs.size());
  for (const auto& [from, to] : order.pairs) {
    out.Put(from);
    out.Put(to);
  }
  out.Put(order.rows);
  out.Put(order.rounds);
  return out.Take();
}

Status Decode(std::string_view bytes, HopsOrder& order) {
  ByteReader in(bytes);
  HopsOrder read;
  read.probe = in.Get<uint64_t>("probe");
  read.longest = in.Get<int64_t>("longest");
  read.members = in.GetList<int>("members");
  read.links = in.Get<uint64_t>("links");
  read.pairs.resize(in.GetCount(2 * sizeof(int), "pairs"));
  for (auto& [from, to] : read.pairs) {
    from = in.Get<int>("pair.from");
    to = in.Get<int>("pair.to");
    if (from == to) in.Refuse(fmt::format("pair: rank {} with itself", from));
  }
  read.rows = in.Get<int64_t>("rows");
  read.rounds = in.Get<int>("rounds");
  if (read.rows < 1 || read.rows >= read.longest) {
    in.Refuse(fmt::format("rows: {} and one back in a cache of {}", read.rows, read.longest));
  }
  if (read.rounds < 1) in.Refuse(fmt::format("rounds: {}", read.rounds));
  return Finish(in, std::move(read), order);
}

std::string Encode(const std::vector<Stretches>& seen) {
  ByteWriter out;
  out.PutCount(seen.size());
  for (const Stretches& one : seen) Put(out, one);
  return out.Take();
}

Status Decode(std::string_view bytes, std::vector<Stretches>& seen) {
  ByteReader in(bytes);
  std::vector<Stretches> read(in.GetCount(3 * kEmptyListBytes, "seen"));
  for (Stretches& one : read) {
    one.before_s = GetSeconds(in, "before_s");
    one.layer_s = GetSeconds(in, "layer_s");
    one.finish_s = GetSeconds(in, "finish_s");
  }
  return Finish(in, std::move(read), seen);
}

std::string Encode(const std::vector<HopTimes>& times) {
  ByteWriter out;
  out.PutCount(times.size());
  for (const HopTimes& one : times) {
    out.Put(one.from);
    out.Put(one.to);
    out.PutList(one.round_s);
  }
  return out.Take();
}

Status Decode(std::string_view bytes, std::vector<HopTimes>& times) {
  ByteReader in(bytes);
  std::vector<HopTimes> read(in.GetCount(2 * sizeof(int) + kEmptyListBytes, "times"));
  for (HopTimes& one : read) {
    one.from = in.Get<int>("times.from");
    one.to = in.Get<int>("times.to");
    one.round_s = GetSeconds(in, "times.round_s");
  }
  return Finish(in, std::move(read), times);
}

std::string Encode(const std::vector<float>& logits) {
  ByteWriter out;
  out.PutList(logits);
  return out.Take();
}

Status Decode(std::string_view bytes, std::vector<float>& logits) {
  ByteReader in(bytes);
  return Finish(in, in.GetList<float>("logits"), logits);
}

}  // namespace runahead
