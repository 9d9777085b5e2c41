// Which token sequences have their rows on which pages of one rank's KV-cache.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace runahead {

/// A prefix of a sequence whose rows are on the cache's pages.
struct PrefixMatch {
  int64_t tokens = 0;          // length of the prefix
  std::vector<int32_t> pages;  // the pages of its rows, in order; the last one is the partial one when partial > 0
  int64_t partial = 0;         // rows of the last page to copy to a page of one's own; 0: the prefix ends with a page
  int64_t valid_from = 0;      // tokens of the shortest prefix that may use the rows of all its pages

  /// How many pages can be shared: all but a partial one.
  [[nodiscard]] int64_t whole_pages() const { return static_cast<int64_t>(pages.size()) - (partial > 0 ? 1 : 0); }
};

/// A trie of pages: each holds the rows of up to page_rows tokens behind those of its parent, and only a full page
/// has children. Adopts pages, shares them, and gives them back least recently used first. Knows page numbers and
/// tokens, no memory. Tokens are always compared themselves. Deterministic. Not thread-safe.
class PrefixCache {
 public:
  /// `page_rows`: rows, that is tokens, of a page.
  explicit PrefixCache(int64_t page_rows);
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  /// Number of pages held.
  [[nodiscard]] int32_t pages() const { return static_cast<int32_t>(nodes_.size()); }
  /// Number of pages that Evict could free now: those that are not pinned, nor before a pinned one.
  [[nodiscard]] int32_t evictable() const { return pages() - held_; }
  /// Whether the cache holds `page`.
  [[nodiscard]] bool Holds(int32_t page) const { return nodes_.contains(page); }

  /// The longest usable prefix of `tokens`, at most `most` tokens, and now the most recently used one. It is at least
  /// as long as the valid_from of each of its pages. Its pages stay the cache's: pin them before any Insert or Evict.
  /// O(tokens log(children)).
  [[nodiscard]] PrefixMatch Find(std::span<const int32_t> tokens, int64_t most);

  /// Keeps each of `pages`, which the cache holds, and all before it, until it was unpinned as often as pinned.
  void Pin(std::span<const int32_t> pages);
  void Unpin(std::span<const int32_t> pages);

  /// The rows of `tokens` are on `pages` [ceil(tokens / page_rows)], to be used only in a prefix of at least
  /// `valid_from` tokens (0: in any). The cache adopts the pages whose rows it lacks. Returns the pages that are not
  /// its own afterwards, for the caller to free: those of `pages` whose rows it has elsewhere, and pages of its own,
  /// not pinned, that one of `pages` replaces (a shorter last page, or a page of a larger valid_from). Pages that are
  /// its own already stay so; one that has got more rows since is known by all of them. Whoever goes on with the
  /// sequence pins those of its pages that the cache holds now, and writes only rows behind its tokens.
  /// O(tokens log(children)).
  [[nodiscard]] std::vector<int32_t> Insert(std::span<const int32_t> tokens, std::span<const int32_t> pages,
                                            int64_t valid_from);

  /// Gives up `count` pages, or all that are evictable() when they are fewer: the least recently used first, a page
  /// only after all behind it. Returns them in this order. O(log(pages)) a page.
  [[nodiscard]] std::vector<int32_t> Evict(int32_t count);

  /// Forgets all pages, none of which is pinned. They stay whose they are.
  void Clear();

 private:
  struct Node;
  using Tokens = std::span<const int32_t>;

  /// Lexicographic. Neighbours of a sequence in this order have the longest common prefixes with it.
  struct ByTokens {
    using is_transparent = void;
    bool operator()(const Node* a, const Node* b) const;
    bool operator()(const Node* a, Tokens b) const;
    bool operator()(Tokens a, const Node* b) const;
  };
  using Children = std::set<Node*, ByTokens>;

  struct Node {
    std::vector<int32_t> tokens;  // [1 to page_rows]
    int32_t page = -1;
    Node* parent = nullptr;  // nullptr: the root, which has no page
    Children children;
    int64_t valid_from = 0;  // tokens of the shortest prefix that may use the rows
    int64_t last_use = 0;    // counter of uses
    int32_t pins = 0;        // pins of this very page
    int32_t held = 0;        // pins, and children that are held; above 0: not evictable
  };
  struct PartialMatch {
    Node* node = nullptr;
    int64_t rows = 0;
  };

  /// The child that holds the first page_rows of `rest`, or nullptr.
  Node* FullChild(const Node& parent, Tokens rest) const;
  /// The child that shares most rows with `rest` (less than a page's), which is behind the first `begin` tokens,
  /// where the prefix has at least `valid_from` tokens and as many as the child wants.
  PartialMatch LongestPartial(const Node& parent, Tokens rest, int64_t begin, int64_t valid_from) const;
  /// Makes the rows of `tokens`, one page, known behind `parent`. Returns their node; `unused` is told what Insert
  /// returns.
  Node* InsertPage(Node& parent, Tokens tokens, int32_t page, int64_t valid_from, std::vector<int32_t>& unused);
  /// A longer child that starts with `tokens` and is as widely valid, or nullptr.
  Node* Covering(const Node& parent, Tokens tokens, int64_t valid_from) const;
  void Adopt(Node& parent, Tokens tokens, int32_t page, int64_t valid_from, std::vector<int32_t>& unused);
  /// `leaf` has the rows of `tokens` now, its own and more.
  void Grow(Node& leaf, Tokens tokens, int64_t valid_from, std::vector<int32_t>& unused);
  void ReplacePage(Node& node, int32_t page, int64_t valid_from, std::vector<int32_t>& unused);
  /// Removes children that are not held, shorter than `child`, equal to its start and no more widely valid.
  void RemoveShorter(const Node& child, std::vector<int32_t>& unused);
  void Touch(Node& node);
  void Hold(Node* node);
  void Release(Node* node);
  void ListLeaf(const Node& node);
  void UnlistLeaf(const Node& node);
  void Remove(Node& leaf);

  int64_t page_rows_;
  int64_t uses_ = 0;                              // counter behind last_use
  int32_t held_ = 0;                              // pages that are held
  Node root_;                                     // of no page
  std::unordered_map<int32_t, Node> nodes_;       // by page; their addresses do not change
  std::set<std::pair<int64_t, int32_t>> leaves_;  // (last use, page) of each page without children that is not held
};

}  // namespace runahead
