// The demo model's tokenizer for targets that need some tokenizer.
#pragma once

#include <filesystem>
#include <memory>

#include "base/source_dir.h"
#include "runahead/tokenizer.h"

namespace runahead::fuzz {

inline const std::shared_ptr<const Tokenizer>& DemoTokenizer() {
  static const auto tokenizer =
      std::make_shared<const Tokenizer>(Tokenizer::Load(std::filesystem::path(SourceDir()) / "models" / "demo"));
  return tokenizer;
}

}  // namespace runahead::fuzz
