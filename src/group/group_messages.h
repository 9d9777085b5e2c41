// What process 0 tells the others of its group, and what they answer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/deadline.h"
#include "base/status.h"
#include "launch/rendezvous.h"
#include "worker/step_plan.h"

namespace runahead {

/// The messages of a control connection, from process 0 unless said otherwise.
enum class GroupMessage : uint16_t {
  kReady = 32,     // from the others: RankFacts of their ranks, which can work from now on
  kTrouble = 33,   // from the others: why they cannot
  kReserve = 34,   // PositionRoom, while no rank works
  kStep = 35,      // RankStep
  kStop = 36,      // StepName of a step that shall end at its next layer
  kForget = 37,    // the id of links that are not used any more
  kResult = 38,    // from the others: StepResult
  kEnd = 39,       // why the group ends; empty: its work is done
  kLost = 40,      // LostProcess
  kBack = 41,      // MemberProcess, which takes the place of one that was lost
  kWork = 42,      // RankWork
  kWorkDone = 43,  // from the others: RankWorkDone
  kWorkStop = 44,  // the number of a RankWork that goes on until then
};

/// A rank as process 0 must know it.
struct RankFacts {
  std::string device;   // name for people
  std::string kind;     // what measurements hold for
  int threads = 1;      // threads of the CPU
  double slowdown = 1;  // EngineOptions::slowdown_of_rank
  int32_t pages = 0;    // pages of its cache
};

/// Positions that tables are needed for.
struct PositionRoom {
  int64_t positions = 0;
  int64_t tokens = 0;  // length of the sequence, which says what angles it has
};

struct StepName {
  int rank = 0;
  uint64_t step = 0;
};

struct LostProcess {
  int process = 0;
  std::string why;
};

struct RankStep {
  int rank = 0;
  uint64_t links = 0;  // id of the links of its gang, the same at all members; 0: no gang
  StepPlan plan;
};

/// Something that the ranks of a process do beside steps: a session's prompt, a measurement.
struct RankWork {
  uint64_t number = 0;  // number among all that process 0 gave this process
  uint32_t kind = 0;    // meaning of the order, for whoever gives and takes it
  std::string order;
};

struct RankWorkDone {
  uint64_t number = 0;
  std::string error;   // why it failed; empty: it did not
  double seconds = 0;  // time that it took there, s
  std::string answer;
  Clock::time_point came;  // time at which it came here; not sent
};

std::string Encode(const std::vector<RankFacts>& ranks);
std::string Encode(const PositionRoom& room);
std::string Encode(const StepName& name);
std::string Encode(const LostProcess& lost);
std::string Encode(const MemberProcess& member);
std::string Encode(const RankWork& work);
std::string Encode(const RankWorkDone& done);
std::string EncodeStep(int rank, uint64_t links, const StepPlan& plan);
std::string EncodeId(uint64_t id);

// Bytes that may be anything. Each fails naming the field that makes no sense.
Status Decode(std::string_view bytes, std::vector<RankFacts>& ranks);
Status Decode(std::string_view bytes, PositionRoom& room);
Status Decode(std::string_view bytes, StepName& name);
Status Decode(std::string_view bytes, LostProcess& lost);
Status Decode(std::string_view bytes, MemberProcess& member);
Status Decode(std::string_view bytes, RankStep& step);
Status Decode(std::string_view bytes, uint64_t& id);
Status Decode(std::string_view bytes, RankWork& work);
Status Decode(std::string_view bytes, RankWorkDone& done);

}  // namespace runahead
