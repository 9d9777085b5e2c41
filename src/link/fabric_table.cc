#include "link/fabric_table.h"

#include <utility>

#include "base/check.h"

namespace runahead {
namespace {

class FabricTable final : public Fabric {
 public:
  FabricTable(std::vector<int> process_of, int here, std::unique_ptr<Fabric> within, const MakeBetween& between)
      : process_of_(std::move(process_of)), here_(here), within_(std::move(within)) {
    CHECK_EQ(within_->ranks(), ranks());
    between_ = between([&fabric = *within_](const Status& reason) { fabric.Fail(reason); });
    CHECK_EQ(between_->ranks(), ranks());
  }

  [[nodiscard]] int ranks() const override { return static_cast<int>(process_of_.size()); }

  Link& Between(int from, int to) override {
    return (IsHere(from) && IsHere(to) ? within_ : between_)->Between(from, to);
  }

  void Fail(const Status& reason) override {
    between_->Fail(reason);
    within_->Fail(reason);
  }

  void KeepTimes(bool keep) override {
    within_->KeepTimes(keep);
    between_->KeepTimes(keep);
  }

 private:
  [[nodiscard]] bool IsHere(int rank) const { return process_of_.at(static_cast<size_t>(rank)) == here_; }

  std::vector<int> process_of_;
  int here_;
  std::unique_ptr<Fabric> within_;
  std::unique_ptr<Fabric> between_;  // last: it calls within_
};

}  // namespace

std::unique_ptr<Fabric> MakeFabricTable(std::vector<int> process_of, int here, std::unique_ptr<Fabric> within,
                                        const MakeBetween& between) {
  return std::make_unique<FabricTable>(std::move(process_of), here, std::move(within), between);
}

}  // namespace runahead
