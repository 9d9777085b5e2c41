// The links among some of the ranks.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "link/link.h"

namespace runahead {

/// Links of a larger fabric, which it borrows, between ranks that are numbered by their chunks.
class MemberFabric final : public Fabric {
 public:
  MemberFabric(Fabric& all, std::vector<int> members) : all_(all), members_(std::move(members)) {}

  [[nodiscard]] int ranks() const override { return static_cast<int>(members_.size()); }
  Link& Between(int from, int to) override {
    return all_.Between(members_.at(static_cast<size_t>(from)), members_.at(static_cast<size_t>(to)));
  }
  void Fail(const Status& reason) override { all_.Fail(reason); }
  void KeepTimes(bool keep) override { all_.KeepTimes(keep); }
  void Keep(std::shared_ptr<const void> memory) override { all_.Keep(std::move(memory)); }

 private:
  Fabric& all_;
  std::vector<int> members_;
};

}  // namespace runahead
