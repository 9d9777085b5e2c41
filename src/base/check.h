// Checks for programmer errors: never reachable from user input, always compiled in.
#pragma once

#include <fmt/format.h>

namespace runahead::internal {

/// Prints `message` with its place and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const std::string& message);

template <typename A, typename B>
[[noreturn]] void CheckPairFailed(const char* file, int line, const char* expression, const A& a, const B& b) {
  CheckFailed(file, line, fmt::format("{} ({} against {})", expression, a, b));
}

}  // namespace runahead::internal

#define CHECK(condition) ((condition) ? void() : ::runahead::internal::CheckFailed(__FILE__, __LINE__, #condition))

// Each argument is evaluated once; both values are printed when the comparison fails.
#define RUNAHEAD_CHECK_PAIR(a, op, b)                                                                 \
  do {                                                                                                \
    const auto& check_a = (a);                                                                        \
    const auto& check_b = (b);                                                                        \
    if (!(check_a op check_b)) {                                                                      \
      ::runahead::internal::CheckPairFailed(__FILE__, __LINE__, #a " " #op " " #b, check_a, check_b); \
    }                                                                                                 \
  } while (false)

#define CHECK_EQ(a, b) RUNAHEAD_CHECK_PAIR(a, ==, b)
#define CHECK_NE(a, b) RUNAHEAD_CHECK_PAIR(a, !=, b)
#define CHECK_LE(a, b) RUNAHEAD_CHECK_PAIR(a, <=, b)
#define CHECK_LT(a, b) RUNAHEAD_CHECK_PAIR(a, <, b)
#define CHECK_GE(a, b) RUNAHEAD_CHECK_PAIR(a, >=, b)
#define CHECK_GT(a, b) RUNAHEAD_CHECK_PAIR(a, >, b)
