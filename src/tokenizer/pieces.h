// A text being cut: the state that pre-tokenizers hand on.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/regex.h"

namespace runahead::tokenizer {

/// A text and the pieces it is cut into so far: ascending, never empty, not overlapping; bytes in no piece are
/// dropped.
struct Pieces {
  std::string text;           // under 4 GiB
  std::vector<Range> ranges;  // of `text`
  bool at_start = false;      // the text begins where the whole input begins

  [[nodiscard]] std::string_view View(Range range) const {
    return std::string_view(text).substr(range.begin, range.end - range.begin);
  }
};

/// What becomes of the matches that a piece is cut at.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// Cuts one piece after the other. Holds only scratch memory; one thread.
class Splitter {
 public:
  explicit Splitter(SplitBehavior behavior, bool invert = false) : behavior_(behavior), invert_(invert) {}

  /// Replaces every piece by its parts; `find(view, matches)` appends the matches within a piece, left to right.
  template <typename Find>
  void Split(Pieces& pieces, Find find) {
    std::vector<Range> parts;
    parts.reserve(std::max(pieces.ranges.size() * 2, pieces.text.size() / 4));  // words are about so long
    for (const Range& piece : pieces.ranges) {
      matches_.clear();
      find(pieces.View(piece), matches_);
      Cut(piece, parts);
    }
    pieces.ranges = std::move(parts);
  }

 private:
  struct Segment {
    Range range;
    bool delimiter;
  };

  void Cut(Range piece, std::vector<Range>& parts);
  void Isolate(Range piece, std::vector<Range>& parts) const;
  void Join();

  SplitBehavior behavior_;
  bool invert_;  // delimiters are what lies between the matches
  std::vector<Range> matches_;
  std::vector<Segment> segments_;
};

}  // namespace runahead::tokenizer
