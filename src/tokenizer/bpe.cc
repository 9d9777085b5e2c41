#include "tokenizer/bpe.h"

#include <fmt/format.h>

#include <algorithm>

#include "runahead/error.h"
#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

constexpr size_t kShortWord = 24;  // symbols: up to here a linear search for the best pair is quickest
constexpr uint32_t kNoRank = ~uint32_t{0};
constexpr uint32_t kNoSymbol = ~uint32_t{0};

uint32_t RankOf(uint64_t merge) { return static_cast<uint32_t>(merge >> 32); }  // kNoRank for FlatMap::kNone
int32_t MergedOf(uint64_t merge) { return static_cast<int32_t>(static_cast<uint32_t>(merge)); }

}  // namespace

void Bpe::Encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& out) const {
  if (ignore_merges_) {
    if (const int32_t id = vocab_.Find(piece); id != kNoToken) {
      out.push_back(id);
      return;
    }
  }
  const bool cut = cuts_ && piece.size() > WordCache::kMaxWord;
  for (size_t begin = 0; begin < piece.size();) {
    const size_t end = cut ? NextCut(piece, begin) : piece.size();
    const std::string_view word = piece.substr(begin, end - begin);
    begin = end;
    const bool remembered = cut && word.size() <= WordCache::kMaxWord;
    const WordCache::Key key = remembered ? scratch.words.Expect(word) : WordCache::Key();
    if (remembered && scratch.words.Append(key, word, out)) continue;
    MergeWord(word, scratch);
    if (remembered) scratch.words.Insert(key, word, scratch.ids);
    out.insert(out.end(), scratch.ids.begin(), scratch.ids.end());
  }
}

void Bpe::MergeWord(std::string_view word, BpeScratch& scratch) const {
  InitialSymbols(word, scratch.ids);
  if (scratch.ids.size() <= kShortWord) {
    MergeShort(scratch.ids);
  } else {
    MergeLong(scratch);
  }
  if (!extra_symbols_.empty()) ResolveSymbols(scratch.ids);
}

// One symbol per character; unknown characters become their bytes' tokens, or the unknown token, or nothing.
void Bpe::InitialSymbols(std::string_view word, std::vector<int32_t>& ids) const {
  ids.clear();
  bool pending_unknown = false;  // held back, as a next unknown character may fuse with it
  for (size_t at = 0; at < word.size();) {
    const size_t length = Utf8Length(word[at]);
    const int32_t id = CharacterId(Utf8At(word.data() + at));
    if (id != kNoToken) {
      if (pending_unknown) ids.push_back(unknown_id_);
      pending_unknown = false;
      ids.push_back(id);
    } else if (!AppendBytes(word.substr(at, length), ids) && has_unknown_) {
      if (unknown_id_ == kNoToken) {
        throw ConfigError(fmt::format("{}: unk_token \"{}\" is not in the vocabulary, and the text needs it", origin_,
                                      unknown_token_));
      }
      if (pending_unknown && !fuse_unknown_) ids.push_back(unknown_id_);
      pending_unknown = true;
    }
    at += length;
  }
  if (pending_unknown) ids.push_back(unknown_id_);
}

// True when byte fallback applies and every byte of the character has a token.
bool Bpe::AppendBytes(std::string_view character, std::vector<int32_t>& ids) const {
  if (!byte_fallback_) return false;
  const size_t start = ids.size();
  for (const char byte : character) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(byte)];
    if (id == kNoToken) {
      ids.resize(start);
      return false;
    }
    ids.push_back(id);
  }
  return true;
}

void Bpe::MergeShort(std::vector<int32_t>& ids) const {
  std::array<uint64_t, kShortWord> merges{};  // [i]: of ids i and i + 1
  size_t pairs = ids.empty() ? 0 : ids.size() - 1;
  for (size_t i = 0; i < pairs; ++i) merges[i] = MergeOf(ids[i], ids[i + 1]);
  while (pairs > 0) {
    size_t best = 0;  // the leftmost of equals
    for (size_t i = 1; i < pairs; ++i) {
      if (RankOf(merges[i]) < RankOf(merges[best])) best = i;
    }
    if (merges[best] == FlatMap::kNone) break;
    ids[best] = MergedOf(merges[best]);
    --pairs;
    for (size_t i = best; i < pairs; ++i) {
      merges[i] = merges[i + 1];
      ids[i + 1] = ids[i + 2];
    }
    if (best < pairs) merges[best] = MergeOf(ids[best], ids[best + 1]);
    if (best > 0) merges[best - 1] = MergeOf(ids[best - 1], ids[best]);
  }
  if (!ids.empty()) ids.resize(pairs + 1);
}

void Bpe::MergeLong(BpeScratch& scratch) const {
  if (!scratch.queue.has_value()) scratch.queue.emplace(ranks_);
  std::vector<BpeScratch::Symbol>& symbols = scratch.symbols;
  const auto count = static_cast<uint32_t>(scratch.ids.size());
  symbols.resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    symbols[i] = {scratch.ids[i], i == 0 ? kNoSymbol : i - 1, i + 1 == count ? kNoSymbol : i + 1, kNoRank, kNoToken};
  }
  const auto offer = [&](uint32_t position) {
    BpeScratch::Symbol& left = symbols[position];
    left.rank = kNoRank;
    if (left.next == kNoSymbol) return;
    const uint64_t merge = MergeOf(left.id, symbols[left.next].id);
    left.rank = RankOf(merge);
    left.merged = MergedOf(merge);
    if (left.rank != kNoRank) scratch.queue->Push({left.rank, position});
  };
  for (uint32_t i = 0; i < count; ++i) offer(i);
  for (MergeQueue::Entry entry{}; scratch.queue->Pop(entry);) {
    BpeScratch::Symbol& left = symbols[entry.position];
    if (left.rank != entry.rank) continue;  // one of the two has merged with another since
    BpeScratch::Symbol& right = symbols[left.next];
    right.rank = kNoRank;
    left.id = left.merged;
    left.next = right.next;
    if (left.next != kNoSymbol) symbols[left.next].previous = entry.position;
    offer(entry.position);
    if (left.previous != kNoSymbol) offer(left.previous);
  }
  scratch.ids.clear();
  for (uint32_t i = 0; i != kNoSymbol && i < count; i = symbols[i].next) scratch.ids.push_back(symbols[i].id);
}

// The end of the part that starts at `begin`: no token reaches across it.
size_t Bpe::NextCut(std::string_view piece, size_t begin) const {
  size_t at = begin;
  char32_t left = Utf8At(piece.data() + at);
  at += Utf8Length(piece[at]);
  while (at < piece.size()) {
    const char32_t right = Utf8At(piece.data() + at);
    if (!MayJoin(left, right)) return at;
    left = right;
    at += Utf8Length(piece[at]);
  }
  return at;
}

bool Bpe::MayJoin(char32_t left, char32_t right) const {
  if (left < 128 && right < 128) return ascii_joins_[left * 128 + right];
  if (joins_.Find(uint64_t{left} << 32 | right) != FlatMap::kNone) return true;
  return !MaySplitAt(left) || !MaySplitAt(right);
}

// An unknown character may fuse with an unknown neighbour, or vanish and let its neighbours meet.
bool Bpe::MaySplitAt(char32_t character) const {
  if (all_bytes_) return true;
  const int32_t id = CharacterId(character);
  return id != kNoToken && id < vocab_.end_id();
}

// Symbols that no merge took become their bytes' tokens, or one unknown token with their neighbours.
void Bpe::ResolveSymbols(std::vector<int32_t>& ids) const {
  std::vector<int32_t> resolved;
  for (const int32_t id : ids) {
    const bool extra = id >= vocab_.end_id();
    if (extra && AppendBytes(extra_symbols_[static_cast<size_t>(id - vocab_.end_id())], resolved)) continue;
    const int32_t token = extra ? unknown_id_ : id;
    if (token == unknown_id_ && !resolved.empty() && resolved.back() == unknown_id_) continue;
    resolved.push_back(token);
  }
  ids = std::move(resolved);
}

}  // namespace runahead::tokenizer
