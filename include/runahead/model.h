// A model's folder, of which the small files are read once for all that need them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "runahead/export.h"

namespace runahead {

class ModelConfig;

/// A Hugging Face folder, or a GGUF file, and what its configuration says. Reads no weights. Immutable and cheap to
/// copy (shared); thread-safe.
class RUNAHEAD_API Model {
 public:
  /// Reads DIR/config.json, or the metadata of a file whose name ends in .gguf. Throws ConfigError naming the file,
  /// the field and the value for an unknown architecture or an unsupported option, and IoError for what is no model's
  /// folder.
  explicit Model(const std::filesystem::path& dir);

  // A model that is moved from stays whole: it is copied.
  Model(const Model&) = default;
  Model& operator=(const Model&) = default;
  ~Model() = default;

  [[nodiscard]] const std::filesystem::path& dir() const;
  [[nodiscard]] int64_t vocab() const;          // token ids are below it
  [[nodiscard]] int64_t max_positions() const;  // the longest sequence, tokens

  /// The same model for sequences of up to `tokens`, be it fewer or more than its configuration says; 0: as it is.
  /// Throws ConfigError for less than 0, and for more than a learned table of positions has.
  [[nodiscard]] Model WithContext(int64_t tokens) const;

 private:
  friend const ModelConfig& ConfigOf(const Model& model);

  explicit Model(std::shared_ptr<const ModelConfig> config);

  std::shared_ptr<const ModelConfig> config_;  // never null
};

}  // namespace runahead
