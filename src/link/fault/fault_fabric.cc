#include "link/fault/fault_fabric.h"

#include <fmt/format.h>

#include <random>
#include <thread>
#include <vector>

namespace runahead {
namespace {

/// Arrives no earlier than `arrival`.
class LateTransfer final : public Transfer {
 public:
  LateTransfer(std::unique_ptr<Transfer> inner, Clock::time_point arrival)
      : inner_(std::move(inner)), arrival_(arrival) {}

  Status Wait(Deadline deadline) override {
    Status status = inner_->Wait(deadline);
    if (!status.ok()) return status;
    std::this_thread::sleep_until(std::min(arrival_, deadline));
    if (arrival_ > deadline) return Status::Failed("a delayed transfer did not arrive before the deadline");
    return Status::Ok();
  }
  Status OrderBefore(Stream& /*stream*/, Deadline deadline) override { return Wait(deadline); }
  [[nodiscard]] std::optional<MovedAt> Moved() const override { return inner_->Moved(); }

 private:
  std::unique_ptr<Transfer> inner_;
  Clock::time_point arrival_;
};

/// A send that leaves and never arrives: done for the sender.
class LostTransfer final : public Transfer {
 public:
  Status Wait(Deadline /*deadline*/) override { return Status::Ok(); }
  Status OrderBefore(Stream& /*stream*/, Deadline /*deadline*/) override { return Status::Ok(); }
};

class FaultLink final : public Link {
 public:
  FaultLink(Link& inner, const Faults& faults, int from, int to)
      : inner_(inner), faults_(faults), from_(from), random_(faults.seed + static_cast<uint64_t>(from * 1000 + to)) {}

  std::unique_ptr<Transfer> Send(const KvSpan& span, Stream& after) override {
    if (from_ == faults_.lose_from && span.layer >= faults_.lose_layer) return std::make_unique<LostTransfer>();
    return inner_.Send(span, after);
  }

  std::unique_ptr<Transfer> Receive(const KvSpan& span) override {
    std::uniform_real_distribution<double> draw(0, faults_.max_delay.count());
    return std::make_unique<LateTransfer>(inner_.Receive(span), After(std::chrono::duration<double>(draw(random_))));
  }

 private:
  Link& inner_;
  const Faults& faults_;
  int from_;
  std::mt19937_64 random_;  // used by the receiving thread only
};

class FaultFabric final : public Fabric {
 public:
  FaultFabric(std::unique_ptr<Fabric> inner, const Faults& faults) : inner_(std::move(inner)), faults_(faults) {
    for (int from = 0; from < ranks(); ++from) {
      for (int to = 0; to < ranks(); ++to) {
        links_.push_back(from == to ? nullptr
                                    : std::make_unique<FaultLink>(inner_->Between(from, to), faults_, from, to));
      }
    }
  }

  [[nodiscard]] int ranks() const override { return inner_->ranks(); }
  Link& Between(int from, int to) override { return *links_.at(static_cast<size_t>(from * ranks() + to)); }
  void Fail(const Status& reason) override { inner_->Fail(reason); }
  void KeepTimes(bool keep) override { inner_->KeepTimes(keep); }

 private:
  std::unique_ptr<Fabric> inner_;
  Faults faults_;
  std::vector<std::unique_ptr<FaultLink>> links_;
};

}  // namespace

std::unique_ptr<Fabric> MakeFaultFabric(std::unique_ptr<Fabric> inner, const Faults& faults) {
  return std::make_unique<FaultFabric>(std::move(inner), faults);
}

}  // namespace runahead
