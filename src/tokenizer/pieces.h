// A text being cut: the state that pre-tokenizers hand on.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/regex.h"

namespace runahead::tokenizer {

/// A part of a piece: a match that the piece is cut at, or what lies between matches.
struct Segment {
  Range range;
  bool delimiter;
};

/// A text and the pieces it is cut into so far: ascending, never empty, not overlapping; bytes in no piece are
/// dropped.
struct Pieces {
  std::string text;           // text below 4 GiB
  std::vector<Range> ranges;  // byte ranges of `text`
  bool at_start = false;      // the text begins where the whole input begins

  /// Memory that stages use again and again.
  struct Scratch {
    std::string text;
    std::vector<Range> ranges;
    std::vector<Range> matches;
    std::vector<Segment> segments;
  } scratch;

  /// A text that is one piece.
  void Start(std::string_view whole, bool starts) {
    text = whole;
    ranges.assign(1, {0, static_cast<uint32_t>(whole.size())});
    at_start = starts;
  }

  [[nodiscard]] std::string_view View(Range range) const {
    return std::string_view(text).substr(range.begin, range.end - range.begin);
  }
};

/// What becomes of the matches that a piece is cut at.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// Cuts one piece after the other.
class Splitter {
 public:
  explicit Splitter(SplitBehavior behavior, bool invert = false) : behavior_(behavior), invert_(invert) {}

  /// Replaces every piece by its parts; `find(view, matches)` appends the matches within a piece, left to right.
  template <typename Find>
  void Split(Pieces& pieces, Find find) const {
    std::vector<Range>& parts = pieces.scratch.ranges;
    parts.clear();
    parts.reserve(std::max(pieces.ranges.size() * 2, pieces.text.size() / 4));  // words are about so long
    for (const Range& piece : pieces.ranges) {
      pieces.scratch.matches.clear();
      find(pieces.View(piece), pieces.scratch.matches);
      Cut(piece, pieces.scratch, parts);
    }
    pieces.ranges.swap(parts);
  }

 private:
  void Cut(Range piece, Pieces::Scratch& scratch, std::vector<Range>& parts) const;

  SplitBehavior behavior_;
  bool invert_;  // delimiters are what lies between the matches
};

}  // namespace runahead::tokenizer
