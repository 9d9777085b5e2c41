#include "tokenizer/pieces.h"

#include <algorithm>

namespace runahead::tokenizer {
namespace {

// Matches that touch become one.
void Coalesce(std::vector<Range>& matches) {
  size_t kept = 0;
  for (const Range& match : matches) {
    if (kept > 0 && matches[kept - 1].end == match.begin) {
      matches[kept - 1].end = match.end;
    } else {
      matches[kept++] = match;
    }
  }
  matches.resize(kept);
}

void Isolate(Range piece, const std::vector<Range>& matches, std::vector<Range>& parts) {
  uint32_t done = piece.begin;
  for (const Range& match : matches) {
    const Range range{piece.begin + match.begin, piece.begin + match.end};
    if (done != range.begin) parts.push_back({done, range.begin});
    if (range.begin != range.end) parts.push_back(range);
    done = range.end;
  }
  if (done != piece.end) parts.push_back({done, piece.end});
}

// Joins or drops segments in place.
void Join(SplitBehavior behavior, std::vector<Segment>& segments) {
  switch (behavior) {
    case SplitBehavior::kIsolated:
    case SplitBehavior::kContiguous:
      return;
    case SplitBehavior::kRemoved:
      std::erase_if(segments, [](const Segment& segment) { return segment.delimiter; });
      return;
    case SplitBehavior::kMergedWithPrevious: {
      bool previous = false;
      size_t kept = 0;
      for (const Segment& segment : segments) {
        const bool joins = segment.delimiter && !previous;
        previous = segment.delimiter;
        if (joins && kept > 0) {
          segments[kept - 1].range.end = segment.range.end;
        } else {
          segments[kept++] = segment;
        }
      }
      segments.resize(kept);
      return;
    }
    case SplitBehavior::kMergedWithNext: {
      bool previous = false;
      size_t kept = segments.size();  // the joined segments fill up from the back
      for (size_t i = segments.size(); i-- > 0;) {
        const Segment segment = segments[i];
        const bool joins = segment.delimiter && !previous;
        previous = segment.delimiter;
        if (joins && kept < segments.size()) {
          segments[kept].range.begin = segment.range.begin;
        } else {
          segments[--kept] = segment;
        }
      }
      segments.erase(segments.begin(), segments.begin() + static_cast<std::ptrdiff_t>(kept));
      return;
    }
  }
}

}  // namespace

void Splitter::Cut(Range piece, Pieces::Scratch& scratch, std::vector<Range>& parts) const {
  std::vector<Range>& matches = scratch.matches;
  if (matches.empty() && !(invert_ && behavior_ == SplitBehavior::kRemoved)) {
    parts.push_back(piece);
    return;
  }
  if (behavior_ == SplitBehavior::kIsolated || behavior_ == SplitBehavior::kContiguous) {
    if (behavior_ == SplitBehavior::kContiguous) Coalesce(matches);
    return Isolate(piece, matches, parts);
  }
  std::vector<Segment>& segments = scratch.segments;
  segments.clear();
  uint32_t done = piece.begin;
  for (const Range& match : matches) {
    const Range range{piece.begin + match.begin, piece.begin + match.end};
    if (done != range.begin) segments.push_back({{done, range.begin}, invert_});
    segments.push_back({range, !invert_});
    done = range.end;
  }
  if (done != piece.end) segments.push_back({{done, piece.end}, invert_});
  Join(behavior_, segments);
  for (const Segment& segment : segments) {
    if (segment.range.begin != segment.range.end) parts.push_back(segment.range);
  }
}

}  // namespace runahead::tokenizer
