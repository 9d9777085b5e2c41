// Links between processes, on one host or several, by UCX: shared memory, TCP or RDMA, as it chooses for each pair.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "link/link.h"
#include "tensor/device.h"

namespace runahead {

struct UcxOptions {
  /// All processes are on this host and share memory: no TCP port is opened, unless UCX_TLS says so.
  bool one_host = false;
};

/// A process's door to the others: one thread that moves what the process's fabrics send and receive while its ranks
/// compute, and that sleeps while nothing moves. Thread-safe. The fabrics made with it keep it alive.
class UcxPort {
 public:
  virtual ~UcxPort() = default;
  /// What other processes need to reach this one: bytes without meaning to anyone but MakeUcxFabric.
  [[nodiscard]] virtual const std::string& address() const = 0;
  /// Registers host memory that spans will lie in, once, where the transport gains from it. Forget it before it goes.
  virtual void Register(std::span<std::byte> memory) = 0;
  virtual void Forget(std::span<std::byte> memory) = 0;
};

/// A rank as its group knows it.
struct UcxPeer {
  std::string address;  // UcxPort::address() of its process
  std::string host;     // name in messages; empty: none
  bool linked = true;   // whether links to it are used
};

/// A group of ranks as one of its processes sees it. All processes name the same `id`, `peers` and order.
struct UcxGroup {
  /// One of the ranks in this process.
  struct Own {
    int rank = 0;
    Device* device = nullptr;  // device of its caches, used by the rank's thread; null: host memory
  };
  uint64_t id = 0;  // drawn at random for each fabric, so that nothing of one before it is taken for its own
  std::vector<UcxPeer> peers;  // [ranks]
  std::vector<Own> own;
  std::function<void(const Status&)> on_failure;  // called with the first failure, from any thread; none: nobody
};

/// Whether this build can use UCX.
bool BuiltWithUcx();

/// Throws ConfigError in a build without UCX or where its library is missing, LinkError where UCX fails. Devices that
/// there are none of are left out.
std::shared_ptr<UcxPort> MakeUcxPort(const UcxOptions& options = {});

/// The links between this process's ranks of a group and the others. What is in host memory lands where it was
/// posted, without a copy between; what is on a GPU passes through page-locked memory. Fail tells every process of
/// the group. A process that is gone fails the fabric with the name of its rank; one that stopped is met at deadlines
/// alone. Throws LinkError for an address that is none.
std::unique_ptr<Fabric> MakeUcxFabric(std::shared_ptr<UcxPort> port, const UcxGroup& group);

}  // namespace runahead
