// Splits the work of one operation over the threads of a rank.
#pragma once

#include <cstdint>

namespace runahead::cpu {

/// Borrows a callable (index, worker) for the duration of a call.
class TaskRef {
 public:
  template <typename F>
  TaskRef(const F& function)  // NOLINT(google-explicit-constructor): a parameter type that takes any callable
      : object_(&function), call_([](const void* object, int64_t index, int worker) {
          (*static_cast<const F*>(object))(index, worker);
        }) {}
  void operator()(int64_t index, int worker) const { call_(object_, index, worker); }

 private:
  const void* object_;
  void (*call_)(const void* object, int64_t index, int worker);
};

/// The threads of one rank: the OpenMP team of the calling thread. One thread starts no others.
class Team {
 public:
  explicit Team(int threads);
  [[nodiscard]] int threads() const { return threads_; }

  /// Calls task(index, worker) once for each index in [0, count): in ascending order, each by the next free worker
  /// (0 <= worker < threads()). Returns when all are done.
  void Run(int64_t count, TaskRef task) const;
  /// Cuts [0, n) into one even range per worker, none shorter than `grain`, and calls task(begin, end) on each.
  template <typename F>
  void RunRanges(int64_t n, int64_t grain, const F& task) const {
    const int64_t fit = grain > 0 ? (n + grain - 1) / grain : n;
    const int64_t parts = fit < threads_ ? fit : threads_;
    if (parts <= 1) {
      if (n > 0) task(int64_t{0}, n);
      return;
    }
    Run(parts, [&](int64_t part, int) { task(n * part / parts, n * (part + 1) / parts); });
  }

 private:
  int threads_;
};

}  // namespace runahead::cpu
