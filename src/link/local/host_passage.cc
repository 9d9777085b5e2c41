#include <cstring>

#include "link/local/passage.h"

namespace runahead {
namespace {

class HostPassage final : public Passage {
 public:
  std::shared_ptr<Departure> Depart(Stream& after) override {
    after.Synchronize();
    return nullptr;
  }

  std::shared_ptr<Arrival> Move(const KvSpan& from, const KvSpan& to,
                                const std::shared_ptr<Departure>& /*when*/) override {
    std::memcpy(to.k.data(), from.k.data(), from.k.bytes());
    std::memcpy(to.v.data(), from.v.data(), from.v.bytes());
    return nullptr;
  }
};

}  // namespace

std::unique_ptr<Passage> MakeHostPassage() { return std::make_unique<HostPassage>(); }

}  // namespace runahead
