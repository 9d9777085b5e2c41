// Cuts an input into blocks of whole lines, as they come.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace runahead::cli {

/// Consecutive lines, the work of one thread for a while.
struct LineBlock {
  size_t first_line = 0;  // counted from 1
  std::string text;       // lines with their ends; the input's last one may have none
  std::string output;     // what became of them
};

/// Reads an input block by block, in memory for the blocks of one call and a line. Only a line feed ends a line: a
/// carriage return before it is part of the text.
class LineBlocks {
 public:
  /// At least one byte into the buffer, or 0 at the end.
  using Reader = std::function<size_t(std::span<char> buffer)>;

  /// `name` opens errors.
  LineBlocks(Reader read, std::string name) : read_(std::move(read)), name_(std::move(name)) {}

  /// Fills `blocks` with the lines that have come, at least one line and at most `most` blocks: it waits for more
  /// only while a line is not complete. False at the end. Throws ConfigError naming a line that is too long, and what
  /// the reader throws.
  bool Next(size_t most, std::vector<LineBlock>& blocks);

 private:
  void Add(std::string text, std::vector<LineBlock>& blocks);

  Reader read_;
  std::string name_;
  std::string begun_;  // the begin of a line whose end has not come
  size_t line_ = 1;    // of the next block
  bool ended_ = false;
};

}  // namespace runahead::cli
