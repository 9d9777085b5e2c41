#include "tokenizer/pieces.h"

#include <algorithm>

namespace runahead::tokenizer {

void Splitter::Cut(Range piece, std::vector<Range>& parts) {
  if (matches_.empty() && !(invert_ && behavior_ == SplitBehavior::kRemoved)) {
    parts.push_back(piece);
    return;
  }
  if (behavior_ == SplitBehavior::kIsolated) return Isolate(piece, parts);
  segments_.clear();
  uint32_t done = piece.begin;
  for (const Range& match : matches_) {
    const Range range{piece.begin + match.begin, piece.begin + match.end};
    if (done != range.begin) segments_.push_back({{done, range.begin}, invert_});
    segments_.push_back({range, !invert_});
    done = range.end;
  }
  if (done != piece.end) segments_.push_back({{done, piece.end}, invert_});
  Join();
  for (const Segment& segment : segments_) {
    if (segment.range.begin != segment.range.end) parts.push_back(segment.range);
  }
}

void Splitter::Isolate(Range piece, std::vector<Range>& parts) const {
  uint32_t done = piece.begin;
  for (const Range& match : matches_) {
    const Range range{piece.begin + match.begin, piece.begin + match.end};
    if (done != range.begin) parts.push_back({done, range.begin});
    if (range.begin != range.end) parts.push_back(range);
    done = range.end;
  }
  if (done != piece.end) parts.push_back({done, piece.end});
}

// Joins or drops segments in place.
void Splitter::Join() {
  switch (behavior_) {
    case SplitBehavior::kIsolated:
      return;
    case SplitBehavior::kRemoved:
      std::erase_if(segments_, [](const Segment& segment) { return segment.delimiter; });
      return;
    case SplitBehavior::kContiguous:
    case SplitBehavior::kMergedWithPrevious: {
      const bool contiguous = behavior_ == SplitBehavior::kContiguous;
      bool previous = false;
      size_t kept = 0;
      for (const Segment& segment : segments_) {
        const bool joins = contiguous ? segment.delimiter == previous : segment.delimiter && !previous;
        previous = segment.delimiter;
        if (joins && kept > 0) {
          segments_[kept - 1].range.end = segment.range.end;
        } else {
          segments_[kept++] = segment;
        }
      }
      segments_.resize(kept);
      return;
    }
    case SplitBehavior::kMergedWithNext: {
      bool previous = false;
      size_t kept = segments_.size();  // the joined segments fill up from the back
      for (size_t i = segments_.size(); i-- > 0;) {
        const Segment segment = segments_[i];
        const bool joins = segment.delimiter && !previous;
        previous = segment.delimiter;
        if (joins && kept < segments_.size()) {
          segments_[kept].range.begin = segment.range.begin;
        } else {
          segments_[--kept] = segment;
        }
      }
      segments_.erase(segments_.begin(), segments_.begin() + static_cast<std::ptrdiff_t>(kept));
      return;
    }
  }
}

}  // namespace runahead::tokenizer
