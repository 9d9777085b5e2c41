// The exceptions a caller of Runahead can meet.
#pragma once

#include <stdexcept>
#include <string>

#include "runahead/export.h"

namespace runahead {

/// Base of every exception the library throws. `what()` is one line that names the thing and the offending value.
class RUNAHEAD_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A value that cannot be used: in a model's files, an option, a request or a command line.
class RUNAHEAD_API ConfigError : public Error {
 public:
  using Error::Error;
};

/// A request that an engine does not take now, though nothing is wrong with it.
class RUNAHEAD_API RefusedError : public Error {
 public:
  enum class Reason : unsigned char {
    kQueueFull,  // too many wait already
    kDeadline,   // its first token is predicted to come too late
  };
  RefusedError(Reason reason, double retry_after_s, const std::string& what)
      : Error(what), reason_(reason), retry_after_s_(retry_after_s) {}

  [[nodiscard]] Reason reason() const { return reason_; }
  /// Predicted time after which it will be taken, s; 0: nothing is known, or waiting does not help.
  [[nodiscard]] double retry_after_s() const { return retry_after_s_; }

 private:
  Reason reason_;
  double retry_after_s_;
};

/// A file that cannot be opened, read, mapped or written, or that ends too early.
class RUNAHEAD_API IoError : public Error {
 public:
  using Error::Error;
};

/// A device (a GPU, a set of CPU threads) that is missing or failed.
class RUNAHEAD_API DeviceError : public Error {
 public:
  using Error::Error;
};

/// A rank or a link that was lost, or did not answer before its deadline. The group of ranks is dead afterwards.
class RUNAHEAD_API LinkError : public Error {
 public:
  using Error::Error;
};

}  // namespace runahead
