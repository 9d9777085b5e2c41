#include "tokenizer/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "runahead/error.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

bool WordBefore(std::string_view text, size_t at) {
  return at > 0 && IsWord(Utf8At(text.data() + PreviousCharacter(text, at)));
}

bool WordAt(std::string_view text, size_t at) { return at < text.size() && IsWord(Utf8At(text.data() + at)); }

size_t SpacesStart(std::string_view text, size_t at, size_t limit) {
  while (at > limit) {
    const size_t previous = PreviousCharacter(text, at);
    if (!IsSpace(Utf8At(text.data() + previous))) break;
    at = previous;
  }
  return at;
}

size_t SpacesEnd(std::string_view text, size_t at) {
  while (at < text.size() && IsSpace(Utf8At(text.data() + at))) at += Utf8Length(text[at]);
  return at;
}

}  // namespace

AddedToken LoadAddedToken(const JsonObject& entry) {
  AddedToken token;
  token.content = entry.String("content");
  token.single_word = entry.Bool("single_word", false);
  token.lstrip = entry.Bool("lstrip", false);
  token.rstrip = entry.Bool("rstrip", false);
  token.special = entry.Bool("special", false);
  token.normalized = entry.Bool("normalized", !token.special);
  return token;
}

int32_t AddedTokens::Add(const AddedToken& token, const Vocab& vocab) {
  int32_t id = Find(token.content);
  const bool again = id != kNoToken;
  if (!again) id = vocab.Find(token.content);
  if (id == kNoToken) id = std::max(end_id_, vocab.size());
  if (id > kMaxTokenId || (!again && tokens_.contains(id))) {
    throw ConfigError(fmt::format("added token \"{}\" gets the id {}, which is not free", token.content, id));
  }
  if (!again) order_.push_back(token);
  ids_[token.content] = id;
  tokens_[id] = token;
  if (token.special) special_.insert(token.content);
  end_id_ = std::max(end_id_, id + 1);
  return id;
}

void AddedTokens::Finish(const Normalizer* normalizer) {
  const auto add = [&](const AddedToken& token) {
    const int32_t id = ids_.at(token.content);
    if (!token.normalized) {
      raw_.Add(token.content, id);
    } else {
      normalized_.Add(normalizer == nullptr ? token.content : normalizer->Apply(token.content), id);
    }
  };
  for (const AddedToken& token : order_) {
    if (token.special) add(token);
  }
  for (const AddedToken& token : order_) {
    if (!token.special) add(token);
  }
}

int32_t AddedTokens::Find(std::string_view content) const {
  const auto found = ids_.find(std::string(content));
  return found == ids_.end() ? kNoToken : found->second;
}

void AddedTokens::Split(std::string_view text, const Trie& trie, std::vector<Section>& sections) const {
  size_t done = 0;
  size_t from = 0;
  size_t begin = 0;
  size_t end = 0;
  int32_t id = kNoToken;
  while (trie.FindFirst(text, from, begin, end, id)) {
    from = end;
    const AddedToken& token = tokens_.at(id);
    if (token.single_word && (WordBefore(text, begin) || WordAt(text, end))) continue;
    // A token before may have taken spaces with which this one begins.
    if (token.lstrip) begin = std::max(SpacesStart(text, begin, done), done);
    if (token.rstrip) end = SpacesEnd(text, end);
    if (begin >= end) continue;
    if (done < begin) sections.push_back({text.substr(done, begin - done), kNoToken});
    sections.push_back({text.substr(begin, end - begin), id});
    done = end;
  }
  if (done < text.size()) sections.push_back({text.substr(done), kNoToken});
}

void AddedTokens::Trie::Add(std::string_view text, int32_t id) {
  if (text.empty()) return;
  if (texts_.empty()) prefix_ = text;
  const auto differs = std::mismatch(prefix_.begin(), prefix_.end(), text.begin(), text.end()).first;
  prefix_.erase(differs, prefix_.end());
  texts_.Add(text, id);
  starts_[static_cast<uint8_t>(text[0])] = true;
}

size_t AddedTokens::Trie::NextCandidate(std::string_view text, size_t from) const {
  if (!prefix_.empty()) {
    const void* found = ::memmem(text.data() + from, text.size() - from, prefix_.data(), prefix_.size());
    return found == nullptr ? text.size() : static_cast<size_t>(static_cast<const char*>(found) - text.data());
  }
  while (from < text.size() && !starts_[static_cast<uint8_t>(text[from])]) ++from;
  return from;
}

bool AddedTokens::Trie::FindFirst(std::string_view text, size_t from, size_t& begin, size_t& end, int32_t& id) const {
  if (texts_.empty()) return false;
  for (begin = NextCandidate(text, from); begin < text.size(); begin = NextCandidate(text, begin + 1)) {
    const ByteTrie::Match match = texts_.LongestPrefix(text.substr(begin));
    if (match.value == ByteTrie::kNone) continue;
    end = begin + match.length;
    id = match.value;
    return true;
  }
  return false;
}

}  // namespace runahead::tokenizer
