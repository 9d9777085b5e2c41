// What is timed for a cost profile, and what costs follow from it.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "plan/cluster_costs.h"
#include "plan/work_shape.h"
#include "worker/short_run.h"

namespace runahead {

/// One mean for each time that something was measured.
using Means = std::vector<double>;
/// Their median. Other work slows a machine down, much for a moment or often for a while, and on a busy machine a
/// moment without other work is the exception. Neither extreme tells what a prompt will take.
double Usual(Means means);

/// Stretches of several short runs.
struct StretchMeans {
  Means before_s;
  Means layer_s;
  Means finish_s;
};

/// Layers of chunks of one size as they were seen: at the start of a prompt, and at the end of the longest one.
struct LayerSamples {
  int64_t rows = 0;
  int64_t far = 0;  // first position of the chunk at the end; 0: there is none
  StretchMeans at_start;
  StretchMeans at_end;
};

/// What was seen of one device, in seconds; with a gauge, in units of what the gauge took around each run.
struct DeviceSamples {
  Means gauge_s;                     // seconds of the same piece of work, again and again; empty: no gauge
  std::vector<LayerSamples> layers;  // ascending by rows
  StretchMeans dense;  // a masked chunk at the start, as large as layers[dense_size], over the longest prompt's keys
  size_t dense_size = 0;
  StretchMeans first_row;  // a prompt of one row, to the end of the pass
  StretchMeans last_row;   // the last row of the longest prompt
};

/// What was seen of copies while all ranks copy. Seconds.
struct LinkSamples {
  Mover mover = Mover::kThread;
  int64_t many = 0;      // rows of a large copy
  size_t row_bytes = 0;  // bytes of one row of one layer, K and V
  std::vector<double> one_row;
  std::vector<double> many_rows;
  std::vector<double> waking;  // time from the last byte until the receiver goes on, s
};

/// What was seen of rows that went from one rank to another, and one row back. Seconds.
struct HopSamples {
  int64_t few = 0;              // rows of a smaller hand-over
  int64_t many = 0;             // rows of a large one
  size_t row_bytes = 0;         // bytes of one row of one layer, K and V
  std::vector<double> one_row;  // rounds of one row
  std::vector<double> few_rows;
  std::vector<double> many_rows;
};

/// How long phases of a few tokens took to begin and to end. Seconds.
struct EndSamples {
  Means start_s;
  Means end_s;
};

/// What was seen while so many ranks worked at once.
struct GroupSamples {
  std::map<int, DeviceSamples> devices;  // key: rank
  LinkSamples links;                     // links; empty for one rank
  EndSamples ends;
};

/// Key: the number of ranks at work.
using ProfileSamples = std::map<int, GroupSamples>;

/// The mean without the smallest and the largest tenth. A phase is a sum of many stretches, so their mean counts and
/// not their median; one hiccup of the machine does not.
double TypicalSeconds(std::vector<double> seconds);

/// Adds the means of one short run, in units of `unit_s` seconds.
void Append(const Stretches& run, double unit_s, StretchMeans& to);
/// Both were taken at the same sizes, or `to` is empty.
void Append(const DeviceSamples& from, DeviceSamples& to);
void Append(const ProfileSamples& from, ProfileSamples& to);

/// The costs of the ranks with these names; at least one rank of each name was measured. Ranks of one name share
/// their samples and their costs. The part of a time that grows with the rows before the chunk is attention.
std::vector<DeviceCost> FitDevices(const std::vector<std::string>& names, const WorkShape& shape,
                                   const GroupSamples& seen, int64_t longest);
LinkCost FitLink(const LinkSamples& seen);
/// A line through what a smaller and a large hand-over took: its slope is the rate, and where it begins the latency.
LinkCost FitHop(const HopSamples& seen, Mover mover);

}  // namespace runahead
