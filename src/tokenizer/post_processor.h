// Post-processors: which special ids stand around those of a text.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/json.h"

namespace runahead::tokenizer {

/// The ids of one sequence with special tokens; kText marks where the text's ids go.
class Template {
 public:
  static constexpr int32_t kText = -1;

  Template() : Template(std::vector<int32_t>{kText}) {}
  explicit Template(std::vector<int32_t> items) : items_(std::move(items)) {}

  [[nodiscard]] const std::vector<int32_t>& items() const { return items_; }

  /// The ids of a text, given those without special tokens.
  [[nodiscard]] std::vector<int32_t> Fill(std::vector<int32_t> text) const;

  /// This template with every kText replaced by `inner`.
  [[nodiscard]] Template Around(const Template& inner) const { return Template(Fill(inner.items_)); }

 private:
  std::vector<int32_t> items_;
};

/// Only the text when the field `key` is absent or null. Throws ConfigError.
Template LoadPostProcessor(const JsonObject& file, const char* key);

}  // namespace runahead::tokenizer
