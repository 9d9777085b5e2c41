#include "schedule/prefix_cache.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"

namespace runahead {
namespace {

/// How many tokens `a` and `b` start with in common.
size_t CommonPrefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t most = std::min(a.size(), b.size());
  size_t common = 0;
  while (common < most && a[common] == b[common]) ++common;
  return common;
}

bool Less(std::span<const int32_t> a, std::span<const int32_t> b) {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
}

}  // namespace

bool PrefixCache::ByTokens::operator()(const Node* a, const Node* b) const { return Less(a->tokens, b->tokens); }
bool PrefixCache::ByTokens::operator()(const Node* a, Tokens b) const { return Less(a->tokens, b); }
bool PrefixCache::ByTokens::operator()(Tokens a, const Node* b) const { return Less(a, b->tokens); }

PrefixCache::PrefixCache(int64_t page_rows) : page_rows_(page_rows) { CHECK_GE(page_rows, 1); }

PrefixMatch PrefixCache::Find(std::span<const int32_t> tokens, int64_t most) {
  CHECK_GE(most, 0);
  tokens = tokens.first(std::min(tokens.size(), static_cast<size_t>(most)));
  const auto rows = static_cast<size_t>(page_rows_);
  std::vector<Node*> path{&root_};
  std::vector<int64_t> valid_from{0};  // [path], of each node together with those before it
  for (size_t begin = 0; Node* child = FullChild(*path.back(), tokens.subspan(begin)); begin += rows) {
    path.push_back(child);
    valid_from.push_back(std::max(valid_from.back(), child->valid_from));
  }
  // The longest way that its pages allow; the root alone always is one.
  PartialMatch partial;
  for (;; path.pop_back(), valid_from.pop_back()) {
    const size_t begin = (path.size() - 1) * rows;
    const Tokens rest = tokens.subspan(begin, std::min(rows, tokens.size() - begin));
    partial = LongestPartial(*path.back(), rest, static_cast<int64_t>(begin), valid_from.back());
    if (partial.node != nullptr || valid_from.back() <= static_cast<int64_t>(begin)) break;
  }
  PrefixMatch match;
  match.tokens = static_cast<int64_t>(path.size() - 1) * page_rows_ + partial.rows;
  match.partial = partial.rows;
  match.valid_from = valid_from.back();
  if (partial.node != nullptr) {
    path.push_back(partial.node);
    match.valid_from = std::max(match.valid_from, partial.node->valid_from);
  }
  ++uses_;
  for (size_t i = 1; i < path.size(); ++i) {
    Touch(*path[i]);
    match.pages.push_back(path[i]->page);
  }
  return match;
}

void PrefixCache::Pin(std::span<const int32_t> pages) {
  for (const int32_t page : pages) {
    const auto found = nodes_.find(page);
    CHECK(found != nodes_.end());
    ++found->second.pins;
    Hold(&found->second);
  }
}

void PrefixCache::Unpin(std::span<const int32_t> pages) {
  for (const int32_t page : pages) {
    const auto found = nodes_.find(page);
    CHECK(found != nodes_.end());
    CHECK_GT(found->second.pins, 0);
    --found->second.pins;
    Release(&found->second);
  }
}

std::vector<int32_t> PrefixCache::Insert(std::span<const int32_t> tokens, std::span<const int32_t> pages,
                                         int64_t valid_from) {
  const auto rows = static_cast<size_t>(page_rows_);
  CHECK_EQ(pages.size(), (tokens.size() + rows - 1) / rows);
  ++uses_;
  std::vector<int32_t> unused;
  Node* node = &root_;
  for (size_t i = 0; i < pages.size(); ++i) {
    const Tokens rest = tokens.subspan(i * rows);
    node = InsertPage(*node, rest.first(std::min(rows, rest.size())), pages[i], valid_from, unused);
    Touch(*node);
  }
  return unused;
}

void PrefixCache::Clear() {
  CHECK_EQ(held_, 0);
  root_.children.clear();
  leaves_.clear();
  nodes_.clear();
}

std::vector<int32_t> PrefixCache::Evict(int32_t count) {
  std::vector<int32_t> evicted;
  while (static_cast<int32_t>(evicted.size()) < count && !leaves_.empty()) {
    const int32_t page = leaves_.begin()->second;
    Remove(nodes_.at(page));
    evicted.push_back(page);
  }
  return evicted;
}

PrefixCache::Node* PrefixCache::FullChild(const Node& parent, Tokens rest) const {
  if (rest.size() < static_cast<size_t>(page_rows_)) return nullptr;
  const auto found = parent.children.find(rest.first(static_cast<size_t>(page_rows_)));
  return found == parent.children.end() ? nullptr : *found;
}

PrefixCache::PartialMatch PrefixCache::LongestPartial(const Node& parent, Tokens rest, int64_t begin,
                                                      int64_t valid_from) const {
  PartialMatch best;
  // Whether a child further away can be better: it shares no more rows than this one, but may be valid.
  const auto look_further = [&](Node* child) {
    const auto rows = static_cast<int64_t>(CommonPrefix(child->tokens, rest));
    if (rows <= best.rows) return false;
    if (std::max(valid_from, child->valid_from) > begin + rows) return true;
    best = {child, rows};
    return false;
  };
  const auto next = parent.children.lower_bound(rest);
  for (auto it = next; it != parent.children.end() && look_further(*it);) ++it;
  for (auto it = next; it != parent.children.begin() && look_further(*std::prev(it));) --it;
  return best;
}

PrefixCache::Node* PrefixCache::InsertPage(Node& parent, Tokens tokens, int32_t page, int64_t valid_from,
                                           std::vector<int32_t>& unused) {
  const auto own = nodes_.find(page);
  if (const auto found = parent.children.find(tokens); found != parent.children.end()) {
    Node* node = *found;
    if (own == nodes_.end() && valid_from < node->valid_from && node->held == 0) {
      ReplacePage(*node, page, valid_from, unused);
    } else if (own == nodes_.end()) {
      unused.push_back(page);
    }
    return node;
  }
  if (own != nodes_.end()) {
    Node& node = own->second;
    CHECK(node.parent == &parent);
    const size_t known = std::min(node.tokens.size(), tokens.size());
    CHECK_EQ(CommonPrefix(node.tokens, tokens), known);
    if (node.tokens.size() < tokens.size()) Grow(node, tokens, valid_from, unused);
    return &node;
  }
  if (Node* longer = Covering(parent, tokens, valid_from)) {
    unused.push_back(page);
    return longer;
  }
  Adopt(parent, tokens, page, valid_from, unused);
  return &nodes_.at(page);
}

PrefixCache::Node* PrefixCache::Covering(const Node& parent, Tokens tokens, int64_t valid_from) const {
  for (auto it = parent.children.lower_bound(tokens); it != parent.children.end(); ++it) {
    if (CommonPrefix((*it)->tokens, tokens) < tokens.size()) break;
    if ((*it)->valid_from <= valid_from) return *it;
  }
  return nullptr;
}

void PrefixCache::Adopt(Node& parent, Tokens tokens, int32_t page, int64_t valid_from, std::vector<int32_t>& unused) {
  Node& node = nodes_[page];
  node.tokens.assign(tokens.begin(), tokens.end());
  node.page = page;
  node.parent = &parent;
  node.valid_from = valid_from;
  UnlistLeaf(parent);
  parent.children.insert(&node);
  RemoveShorter(node, unused);
}

void PrefixCache::Grow(Node& leaf, Tokens tokens, int64_t valid_from, std::vector<int32_t>& unused) {
  Children& siblings = leaf.parent->children;
  siblings.erase(&leaf);
  leaf.tokens.assign(tokens.begin(), tokens.end());
  leaf.valid_from = std::max(leaf.valid_from, valid_from);
  siblings.insert(&leaf);
  RemoveShorter(leaf, unused);
}

void PrefixCache::ReplacePage(Node& node, int32_t page, int64_t valid_from, std::vector<int32_t>& unused) {
  UnlistLeaf(node);
  unused.push_back(node.page);
  auto entry = nodes_.extract(node.page);
  entry.key() = node.page = page;
  nodes_.insert(std::move(entry));
  node.valid_from = valid_from;
  ListLeaf(node);
}

void PrefixCache::RemoveShorter(const Node& child, std::vector<int32_t>& unused) {
  const Tokens tokens = child.tokens;
  const Children& siblings = child.parent->children;
  for (auto it = siblings.find(tokens); it != siblings.begin();) {
    Node& before = **std::prev(it);
    const size_t common = CommonPrefix(before.tokens, tokens);
    if (common < before.tokens.size()) {
      it = siblings.upper_bound(tokens.first(common));  // nothing between is a start of these tokens
    } else if (before.held == 0 && before.valid_from >= child.valid_from) {
      unused.push_back(before.page);
      Remove(before);
    } else {
      --it;
    }
  }
}

void PrefixCache::Touch(Node& node) {
  UnlistLeaf(node);
  node.last_use = uses_;
  ListLeaf(node);
}

void PrefixCache::Hold(Node* node) {
  for (; node != &root_ && ++node->held == 1; node = node->parent) {
    ++held_;
    UnlistLeaf(*node);
  }
}

void PrefixCache::Release(Node* node) {
  for (; node != &root_ && --node->held == 0; node = node->parent) {
    --held_;
    ListLeaf(*node);
  }
}

void PrefixCache::ListLeaf(const Node& node) {
  if (&node != &root_ && node.children.empty() && node.held == 0) leaves_.emplace(node.last_use, node.page);
}

void PrefixCache::UnlistLeaf(const Node& node) { leaves_.erase({node.last_use, node.page}); }

void PrefixCache::Remove(Node& leaf) {
  UnlistLeaf(leaf);
  Node& parent = *leaf.parent;
  parent.children.erase(&leaf);
  nodes_.erase(leaf.page);
  ListLeaf(parent);
}

}  // namespace runahead
