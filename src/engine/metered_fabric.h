// The links among the members of a gang, with meters.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/member_fabric.h"

namespace runahead {

/// Counts what each member sends, and how long its thread waits for what it receives. Borrows nothing.
class MeteredFabric final : public Fabric {
 public:
  MeteredFabric(std::shared_ptr<Fabric> all, const std::vector<int>& members);
  ~MeteredFabric() override;

  [[nodiscard]] int ranks() const override { return links_.ranks(); }
  Link& Between(int from, int to) override;
  void Fail(const Status& reason) override { links_.Fail(reason); }
  void KeepTimes(bool keep) override { links_.KeepTimes(keep); }
  void Keep(std::shared_ptr<const void> memory) override { links_.Keep(std::move(memory)); }

  /// What one member's thread did; for that thread, or when it is done.
  struct Meter {
    int64_t bytes_sent = 0;
    double wait_s = 0;
  };
  [[nodiscard]] const Meter& Of(int member) const { return meters_.at(static_cast<size_t>(member)); }

 private:
  class MeteredLink;

  std::shared_ptr<Fabric> all_;
  MemberFabric links_;
  std::vector<Meter> meters_;  // [members]
  std::mutex mutex_;
  std::map<std::pair<int, int>, std::unique_ptr<MeteredLink>> metered_;  // by (from, to), guarded by mutex_
};

}  // namespace runahead
