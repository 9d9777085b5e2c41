// Wrong files made of right ones: a few random changes to the bytes, the lines or the values of a sample.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "base/json.h"

namespace runahead::mutation {

/// A changed sample, and what names the change in an error.
struct Mutant {
  std::string text;
  std::vector<std::string> fields;  // keys on the way to the changed value; empty where bytes were changed
};

/// The same seed gives the same mutants.
class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  /// One value of a JSON document replaced, moved, renamed or removed; or sometimes bytes of its text changed.
  Mutant OfJson(const Json& sample);
  /// One to four changes to bytes: flipped, inserted, removed, repeated, cut off, or a token of the language put in.
  std::string OfBytes(std::string text);
  /// A line removed, repeated or moved, or the value behind its "=" replaced; or bytes changed.
  std::string OfToml(const std::string& text);

  /// A number below `n`.
  size_t Below(size_t n) { return n == 0 ? 0 : random_() % n; }

 private:
  Json OddValue();
  void Change(Json& node, std::vector<std::string>& fields);

  std::mt19937_64 random_;
};

}  // namespace runahead::mutation
