// Timelines as JSON: small enough to be asked for again and again.
#include "protocol/timeline_json.h"

#include <gtest/gtest.h>

#include "base/json.h"

namespace runahead::protocol {
namespace {

TimelineEvent Event(int rank, Activity activity, double begin_ms, double end_ms) {
  TimelineEvent event;
  event.rank = rank;
  event.activity = activity;
  event.begin_ms = begin_ms;
  event.end_ms = end_ms;
  return event;
}

TEST(TimelineJsonTest, TellsAllOfAFew) {
  EXPECT_EQ(TimelineJson({}), "[]");
  TimelineEvent event = Event(1, Activity::kSend, 0.5, 5);
  event.layer = 3;
  event.bytes = 77;
  event.peer = 2;
  EXPECT_EQ(Json::parse(TimelineJson({event, event})), Json::parse(R"([
    {"rank": 1, "layer": 3, "kind": "send", "begin_ms": 0.5, "end_ms": 5, "bytes": 77, "peer": 2},
    {"rank": 1, "layer": 3, "kind": "send", "begin_ms": 0.5, "end_ms": 5, "bytes": 77, "peer": 2}])"));
}

TEST(TimelineJsonTest, JoinsMany) {
  std::vector<TimelineEvent> events = {Event(0, Activity::kWait, 0, 400)};
  for (int i = 0; i < 1000; ++i) {
    events.push_back(Event(1, Activity::kCompute, i, i + 0.9));
    events.back().layer = i;
    events.back().bytes = 2;
  }
  EXPECT_EQ(Json::parse(TimelineJson(events)), Json::parse(R"([
    {"rank": 0, "layer": 0, "kind": "wait", "begin_ms": 0, "end_ms": 400, "bytes": 0, "peer": -1},
    {"rank": 1, "layer": -1, "kind": "compute", "begin_ms": 0, "end_ms": 999.9, "bytes": 2000, "peer": -1}])"));
}

TEST(TimelineJsonTest, IsBounded) {
  std::vector<TimelineEvent> events;
  for (int i = 0; i < 100'000; ++i) events.push_back(Event(i % 8, Activity::kCompute, i, i + 1));
  const Json json = Json::parse(TimelineJson(events));
  EXPECT_LE(json.size(), 1000U);
  EXPECT_EQ(json.front()["begin_ms"], 0);
  EXPECT_EQ(json.back()["end_ms"], 100'000);
}

}  // namespace
}  // namespace runahead::protocol
