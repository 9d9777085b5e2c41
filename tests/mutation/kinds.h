// The kinds of files that the program reads, a right sample of each, and the command that reads it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tests/mutation/mutate.h"

namespace runahead::mutation {

enum class Format : uint8_t { kJson, kJsonLine, kToml, kSafetensors, kGguf };

struct Kind {
  std::string name;    // "config", "tokenizer", ...
  std::string folder;  // below the folder of all samples
  std::string file;    // in there: the one that is changed
  Format format = Format::kJson;
  std::vector<std::string> command;  // of the program; @ stands for the folder
  std::vector<std::string> further;  // what is run on files that `command` accepts; empty: nothing
};

/// Writes a sample of every kind into `folder`, by `program` where it writes such files itself: tiny models, and a
/// cost profile and a partition table of one. Throws Error when the program fails.
std::vector<Kind> WriteSamples(const std::string& program, const std::filesystem::path& folder);

/// A mutant of the sample `text` of `kind`.
Mutant Mutate(const Kind& kind, const std::string& text, Mutator& mutator);

}  // namespace runahead::mutation
