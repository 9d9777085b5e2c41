#include "engine/metered_fabric.h"

namespace runahead {
namespace {

/// A span that is received; its receiver's wait is measured.
class MeteredTransfer final : public Transfer {
 public:
  MeteredTransfer(std::unique_ptr<Transfer> inner, MeteredFabric::Meter& meter)
      : inner_(std::move(inner)), meter_(meter) {}

  Status Wait(Deadline deadline) override { return inner_->Wait(deadline); }
  Status OrderBefore(Stream& stream, Deadline deadline) override {
    const auto begin = Clock::now();
    Status status = inner_->OrderBefore(stream, deadline);
    meter_.wait_s += std::chrono::duration<double>(Clock::now() - begin).count();
    return status;
  }
  [[nodiscard]] std::optional<MovedAt> Moved() const override { return inner_->Moved(); }

 private:
  std::unique_ptr<Transfer> inner_;
  MeteredFabric::Meter& meter_;
};

}  // namespace

class MeteredFabric::MeteredLink final : public Link {
 public:
  MeteredLink(Link& inner, Meter& sender, Meter& receiver) : inner_(inner), sender_(sender), receiver_(receiver) {}

  std::unique_ptr<Transfer> Send(const KvSpan& span, Stream& after) override {
    std::unique_ptr<Transfer> transfer = inner_.Send(span, after);
    sender_.bytes_sent += static_cast<int64_t>(span.bytes());
    return transfer;
  }
  std::unique_ptr<Transfer> Receive(const KvSpan& span) override {
    return std::make_unique<MeteredTransfer>(inner_.Receive(span), receiver_);
  }

 private:
  Link& inner_;
  Meter& sender_;
  Meter& receiver_;
};

MeteredFabric::MeteredFabric(std::shared_ptr<Fabric> all, const std::vector<int>& members)
    : all_(std::move(all)), links_(*all_, members), meters_(members.size()) {}

MeteredFabric::~MeteredFabric() = default;

Link& MeteredFabric::Between(int from, int to) {
  const std::lock_guard lock(mutex_);
  std::unique_ptr<MeteredLink>& link = metered_[{from, to}];
  if (link == nullptr) {
    link = std::make_unique<MeteredLink>(links_.Between(from, to), meters_.at(static_cast<size_t>(from)),
                                         meters_.at(static_cast<size_t>(to)));
  }
  return *link;
}

}  // namespace runahead
