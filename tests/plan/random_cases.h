// Shapes, partitions and costs for tests, small or drawn at random.
#pragma once

#include <random>
#include <set>
#include <vector>

#include "plan/cluster_costs.h"
#include "plan/partition.h"
#include "plan/work_shape.h"

namespace runahead {

/// One head of one element, so that counts are easy to follow.
inline WorkShape SmallShape() {
  WorkShape shape;
  shape.layers = 3;
  shape.hidden = 8;
  shape.q_heads = shape.kv_heads = 1;
  shape.head_dim = 1;
  shape.ffn = 16;
  shape.vocab = 10;
  return shape;
}

/// A model of about 7 billion weights in bf16.
inline WorkShape SevenBillion() {
  WorkShape shape;
  shape.layers = 32;
  shape.hidden = 4096;
  shape.q_heads = shape.kv_heads = 32;
  shape.head_dim = 128;
  shape.ffn = 11008;
  shape.vocab = 32000;
  return shape;
}

inline WorkShape RandomShape(std::mt19937& random) {
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  WorkShape shape;
  shape.layers = static_cast<int>(draw(1, 5));
  shape.hidden = draw(1, 64);
  shape.kv_heads = draw(1, 3);
  shape.q_heads = shape.kv_heads * draw(1, 3);
  shape.head_dim = draw(1, 32);
  shape.ffn = draw(1, 200);
  shape.vocab = draw(1, 500);
  shape.mlp_matrices = static_cast<int>(draw(2, 3));
  shape.element_bytes = static_cast<size_t>(draw(1, 2)) * 2;
  for (int layer = 0; draw(0, 1) == 0 && layer < shape.layers; ++layer) shape.windows.push_back(0);
  if (!shape.windows.empty()) {
    shape.windows.resize(static_cast<size_t>(shape.layers));
    for (int64_t& window : shape.windows) window = draw(0, 1) == 0 ? 0 : draw(1, 60);
  }
  return shape;
}

inline Partition RandomPartition(std::mt19937& random, int ranks) {
  std::set<int64_t> cuts{0};
  while (cuts.size() <= static_cast<size_t>(ranks))
    cuts.insert(std::uniform_int_distribution<int64_t>(1, 300)(random));
  return Partition({cuts.begin(), cuts.end()});
}

/// Devices of different speed and links that each differ, all moved by `mover`.
inline ClusterCosts RandomCosts(std::mt19937& random, int ranks, Mover mover) {
  std::uniform_real_distribution<double> draw(0.1, 1);
  ClusterCosts costs;
  costs.start_s = draw(random);
  costs.end_s = draw(random);
  for (int rank = 0; rank < ranks; ++rank) {
    DeviceCost device;
    device.knots = {{1, draw(random), 1 + draw(random), draw(random) / 100},
                    {100, 50 * draw(random), 50 + 50 * draw(random), draw(random) / 100}};
    device.finish_s = draw(random);
    device.finish_pair_s = draw(random) / 100;
    device.masked_pair = 2 * draw(random);
    costs.devices.push_back(device);
  }
  costs.links = LinkTable(ranks, {0.1, 10, 0.1, mover});
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) {
      costs.links.Set(from, to, {draw(random), 300 * draw(random), draw(random), mover});
    }
  }
  return costs;
}

}  // namespace runahead
