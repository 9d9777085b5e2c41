// The result of an operation on the data path, where exceptions would cost or cannot cross a thread.
#pragma once

#include <string>
#include <utility>

namespace runahead {

/// Success, or one line that says what failed. Cheap to move; an empty message is success.
class [[nodiscard]] Status {
 public:
  Status() = default;

  static Status Ok() { return {}; }
  /// `message` names the rank, link or layer that failed; it must not be empty.
  static Status Failed(std::string message) {
    Status status;
    status.message_ = std::move(message);
    return status;
  }

  [[nodiscard]] bool ok() const { return message_.empty(); }
  [[nodiscard]] const std::string& message() const { return message_; }

 private:
  std::string message_;
};

}  // namespace runahead
