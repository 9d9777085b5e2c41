// The process that renders: a Python with jinja2, confined, spoken with over a socket.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "base/deadline.h"
#include "base/descriptor.h"

namespace runahead::chat {

/// A running render.py. It inherits no descriptor and little of the environment, and is killed at the end. One
/// thread.
class RenderProcess {
 public:
  /// Starts the first python3 of PATH that has jinja2. Throws IoError saying what to install when there is none.
  static RenderProcess Start();

  RenderProcess() = default;
  ~RenderProcess() { Kill(); }
  RenderProcess(RenderProcess&& other) noexcept;
  RenderProcess& operator=(RenderProcess&& other) noexcept;
  RenderProcess(const RenderProcess&) = delete;
  RenderProcess& operator=(const RenderProcess&) = delete;

  /// False when there is none, or when it has ended.
  [[nodiscard]] bool Runs() const;
  /// Ends it at once.
  void Kill();

  enum class Outcome { kReplied, kLate, kDied };
  /// Sends `request`, a JSON object, and waits for the JSON object that answers it. After kLate and kDied the process
  /// is of no use any more; `reply` is then undefined.
  [[nodiscard]] Outcome Ask(std::string_view request, Deadline deadline, std::string& reply) const;

 private:
  /// Throws IoError naming `python` and the reason.
  explicit RenderProcess(const std::string& python);

  pid_t pid_ = -1;
  Descriptor socket_;
};

}  // namespace runahead::chat
