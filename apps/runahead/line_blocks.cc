#include "line_blocks.h"

#include <fmt/format.h>

#include <algorithm>

#include "runahead/error.h"

namespace runahead::cli {
namespace {

// Bytes of a read, those of a full pipe: a shorter one means that the writer is not ahead.
constexpr size_t kReadBytes = 64 * 1024;
constexpr size_t kLongestLine = size_t{1} << 30;  // bytes; far more than the tokenizer takes

}  // namespace

bool LineBlocks::Next(size_t most, std::vector<LineBlock>& blocks) {
  blocks.clear();
  std::string buffer(kReadBytes, '\0');
  while (!ended_ && blocks.size() < most) {
    const size_t got = read_(buffer);
    if (got == 0) {
      ended_ = true;
      if (!begun_.empty()) Add(std::exchange(begun_, {}), blocks);
      break;
    }
    const std::string_view piece = std::string_view(buffer).substr(0, got);
    const size_t last = piece.rfind('\n');
    if (last == std::string_view::npos) {
      begun_ += piece;
      if (begun_.size() > kLongestLine) {
        throw ConfigError(fmt::format("{}: line {}: it has more than {} bytes", name_, line_, kLongestLine));
      }
      continue;
    }
    begun_ += piece.substr(0, last + 1);
    Add(std::exchange(begun_, std::string(piece.substr(last + 1))), blocks);
    if (got < kReadBytes) break;
  }
  return !blocks.empty();
}

void LineBlocks::Add(std::string text, std::vector<LineBlock>& blocks) {
  const auto lines = static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  blocks.push_back({line_, std::move(text), {}});
  line_ += lines;
}

}  // namespace runahead::cli
