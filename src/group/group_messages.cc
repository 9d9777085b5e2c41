#include "group/group_messages.h"

#include <fmt/format.h>

#include "wire/bytes.h"
#include "wire/step_messages.h"

namespace runahead {

std::string Encode(const std::vector<RankFacts>& ranks) {
  ByteWriter out;
  out.PutCount(ranks.size());
  for (const auto& [device, kind, threads, slowdown, pages] : ranks) {
    out.PutText(device);
    out.PutText(kind);
    out.Put(threads);
    out.Put(slowdown);
    out.Put(pages);
  }
  return out.Take();
}

Status Decode(std::string_view bytes, std::vector<RankFacts>& ranks) {
  constexpr size_t kLeast = 2 * sizeof(uint64_t) + 16;  // bytes of a rank
  constexpr int kMostThreads = 1 << 16;
  constexpr int kMostPages = 1 << 24;
  ByteReader in(bytes);
  std::vector<RankFacts> read(in.GetCount(kLeast, "ranks"));
  for (RankFacts& rank : read) {
    rank.device = in.GetText("rank.device");
    rank.kind = in.GetText("rank.kind");
    rank.threads = in.Get<int>("rank.threads");
    rank.slowdown = in.Get<double>("rank.slowdown");
    rank.pages = in.Get<int32_t>("rank.pages");
    if (!in.ok()) break;
    if (rank.threads < 1 || rank.threads > kMostThreads) in.Refuse(fmt::format("rank.threads: {}", rank.threads));
    if (!(rank.slowdown >= 1 && rank.slowdown <= 1e6)) in.Refuse(fmt::format("rank.slowdown: {}", rank.slowdown));
    if (rank.pages < 1 || rank.pages > kMostPages) in.Refuse(fmt::format("rank.pages: {}", rank.pages));
  }
  if (Status end = in.End(); !end.ok()) return end;
  ranks = std::move(read);
  return Status::Ok();
}

std::string Encode(const PositionRoom& room) {
  ByteWriter out;
  out.Put(room.positions);
  out.Put(room.tokens);
  return out.Take();
}

Status Decode(std::string_view bytes, PositionRoom& room) {
  ByteReader in(bytes);
  room.positions = in.Get<int64_t>("positions");
  room.tokens = in.Get<int64_t>("tokens");
  return in.End();
}

std::string Encode(const StepName& name) {
  ByteWriter out;
  out.Put(name.rank);
  out.Put(name.step);
  return out.Take();
}

Status Decode(std::string_view bytes, StepName& name) {
  ByteReader in(bytes);
  name.rank = in.Get<int>("rank");
  name.step = in.Get<uint64_t>("step");
  return in.End();
}

std::string Encode(const LostProcess& lost) {
  ByteWriter out;
  out.Put(lost.process);
  out.PutText(lost.why);
  return out.Take();
}

Status Decode(std::string_view bytes, LostProcess& lost) {
  ByteReader in(bytes);
  lost.process = in.Get<int>("process");
  lost.why = in.GetText("why");
  return in.End();
}

std::string Encode(const MemberProcess& member) {
  ByteWriter out;
  out.Put(member.rank);
  out.PutText(member.host);
  out.PutText(member.address);
  return out.Take();
}

Status Decode(std::string_view bytes, MemberProcess& member) {
  ByteReader in(bytes);
  member.rank = in.Get<int>("process");
  member.host = in.GetText("host");
  member.address = in.GetText("address");
  return in.End();
}

std::string Encode(const RankWork& work) {
  ByteWriter out;
  out.Put(work.number);
  out.Put(work.kind);
  out.PutText(work.order);
  return out.Take();
}

Status Decode(std::string_view bytes, RankWork& work) {
  ByteReader in(bytes);
  work.number = in.Get<uint64_t>("number");
  work.kind = in.Get<uint32_t>("kind");
  work.order = in.GetText("order");
  return in.End();
}

std::string Encode(const RankWorkDone& done) {
  ByteWriter out;
  out.Put(done.number);
  out.PutText(done.error);
  out.Put(done.seconds);
  out.PutText(done.answer);
  return out.Take();
}

Status Decode(std::string_view bytes, RankWorkDone& done) {
  ByteReader in(bytes);
  done.number = in.Get<uint64_t>("number");
  done.error = in.GetText("error");
  done.seconds = in.Get<double>("seconds");
  done.answer = in.GetText("answer");
  if (!(done.seconds >= 0)) in.Refuse(fmt::format("seconds: {}", done.seconds));
  return in.End();
}

std::string EncodeStep(int rank, uint64_t links, const StepPlan& plan) {
  ByteWriter out;
  out.Put(rank);
  out.Put(links);
  out.PutText(EncodeStepPlan(plan));
  return out.Take();
}

Status Decode(std::string_view bytes, RankStep& step) {
  ByteReader in(bytes);
  step.rank = in.Get<int>("rank");
  step.links = in.Get<uint64_t>("links");
  const std::string plan = in.GetText("plan");
  if (Status end = in.End(); !end.ok()) return end;
  return DecodeStepPlan(plan, step.plan);
}

std::string EncodeId(uint64_t id) {
  ByteWriter out;
  out.Put(id);
  return out.Take();
}

Status Decode(std::string_view bytes, uint64_t& id) {
  ByteReader in(bytes);
  id = in.Get<uint64_t>("id");
  return in.End();
}

}  // namespace runahead
