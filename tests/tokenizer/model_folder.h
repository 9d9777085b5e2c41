// A temporary model folder with a small tokenizer.json, for tests.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "runahead/tokenizer.h"

namespace runahead::tokenizer {

/// Removed with its content when the test ends.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("runahead-tokenizer-test-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// A tokenizer.json without components whose vocabulary is `tokens`, numbered from 0. A merge is added, in order, for
/// every token that two earlier ones make up when cut at `|`: "th|e" is the token "the" and the merge "th e".
inline Json SmallTokenizer(const std::vector<std::string>& tokens) {
  Json vocab = Json::object();
  Json merges = Json::array();
  for (std::string token : tokens) {
    const size_t cut = token.size() > 1 ? token.find('|') : std::string::npos;
    if (cut != std::string::npos) {
      merges.push_back(Json::array({token.substr(0, cut), token.substr(cut + 1)}));
      token.erase(cut, 1);
    }
    vocab[token] = vocab.size();
  }
  return {{"added_tokens", Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder", nullptr},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

/// One entry of added_tokens without flags.
inline Json AddedEntry(int id, const std::string& content, bool special = true) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

inline Tokenizer LoadText(const std::string& tokenizer_json) {
  const TemporaryFolder folder;
  WriteFile(folder.path() / "tokenizer.json", tokenizer_json);
  return Tokenizer::Load(folder.path());
}

inline Tokenizer LoadSmall(const Json& tokenizer_json) { return LoadText(tokenizer_json.dump()); }

/// What a stream decoder gives for each id, and at last for Flush.
inline std::vector<std::string> Stream(const Tokenizer& tokenizer, std::span<const int32_t> ids,
                                       bool skip_special = true) {
  StreamDecoder stream(tokenizer, skip_special);
  std::vector<std::string> texts;
  for (const int32_t id : ids) texts.push_back(stream.Feed(id));
  texts.push_back(stream.Flush());
  return texts;
}

}  // namespace runahead::tokenizer
