// A library that is opened while the program runs, which starts without it.
#pragma once

#include <string>

namespace runahead {

/// Stays open until the program ends.
class SharedLibrary {
 public:
  /// `file`: as the loader knows it, "libucp.so.0". What is thrown begins with `purpose`, and calls it `name`. Throws
  /// ConfigError where it cannot be opened, naming the `package` that has it unless that is empty.
  SharedLibrary(const char* file, std::string purpose, std::string name, const std::string& package = "");

  /// Sets `function` to the one of that name. Throws ConfigError where there is none.
  template <typename Function>
  void Find(const char* name, Function*& function) const {
    function = reinterpret_cast<Function*>(Address(name));
  }

 private:
  [[nodiscard]] void* Address(const char* name) const;

  std::string purpose_;
  std::string name_;
  void* handle_;
};

}  // namespace runahead
