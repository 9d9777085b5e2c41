#include "tokenizer/regex.h"

#include <fmt/format.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <new>

#include "runahead/error.h"
#include "tokenizer/regex_syntax.h"
#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

struct Deleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};

template <typename T>
using Owned = std::unique_ptr<T, Deleter>;

template <typename T>
Owned<T> Own(T* made) {
  if (made == nullptr) throw std::bad_alloc();
  return Owned<T>(made);
}

std::string ErrorText(int error) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

// What one thread needs to match: made on its first match, good for every pattern.
struct MatchRoom {
  static constexpr size_t kSmallStack = size_t{32} << 10;
  static constexpr size_t kLargeStack = size_t{4} << 20;

  Owned<pcre2_match_data> data = Own(pcre2_match_data_create(1, nullptr));
  Owned<pcre2_jit_stack> stack = Own(pcre2_jit_stack_create(kSmallStack, kLargeStack, nullptr));
  Owned<pcre2_match_context> context = Own(pcre2_match_context_create(nullptr));

  MatchRoom() { pcre2_jit_stack_assign(context.get(), nullptr, stack.get()); }
};

MatchRoom& Room() {
  static thread_local MatchRoom room;
  return room;
}

}  // namespace

struct Regex::Compiled {
  Owned<pcre2_code> code;
  bool jit = false;
  uint32_t min_length = 0;          // length of the shortest match, characters
  const uint8_t* starts = nullptr;  // a bit per byte: can start a match; null when not known

  // False when there cannot be a match: saves the engine's start for many short texts.
  [[nodiscard]] bool MayMatch(std::string_view text) const {
    if (text.size() < min_length) return false;
    if (starts == nullptr || text.size() > kWorthScanning) return true;
    for (const char byte : text) {
      const auto value = static_cast<uint8_t>(byte);
      if ((starts[value / 8] >> (value % 8) & 1) != 0) return true;
    }
    return false;
  }

  static constexpr size_t kWorthScanning = 64;
};

Regex::Regex(std::string_view pattern, std::string origin)
    : origin_(std::move(origin)), ascii_(AsciiWords::Of(pattern)) {
  const std::string translated = TranslateRegex(pattern, origin_);
  const auto context = Own(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto compiled = std::make_shared<Compiled>();
  compiled->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                     PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, context.get()));
  if (compiled->code == nullptr) {
    throw ConfigError(fmt::format("{}: not a regular expression: {}, got {}", origin_, ErrorText(error), pattern));
  }
  pcre2_pattern_info(compiled->code.get(), PCRE2_INFO_MINLENGTH, &compiled->min_length);
  pcre2_pattern_info(compiled->code.get(), PCRE2_INFO_FIRSTBITMAP, &compiled->starts);
  compiled->jit = pcre2_jit_compile(compiled->code.get(), PCRE2_JIT_COMPLETE) == 0;  // else it is interpreted
  compiled_ = std::move(compiled);
}

void Regex::FindAll(std::string_view text, std::vector<Range>& matches) const {
  if (!compiled_->MayMatch(text)) return;
  MatchRoom& room = Room();
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(room.data.get());
  const size_t none = text.size() + 1;
  size_t last_end = none;
  size_t start = 0;
  while (start + compiled_->min_length <= text.size()) {
    if (ascii_.has_value() && start < text.size()) {
      const uint32_t end = ascii_->End(text, static_cast<uint32_t>(start));
      if (end > start) {
        matches.push_back({static_cast<uint32_t>(start), end});
        start = end;
        continue;
      }
    }
    int result = compiled_->jit ? pcre2_jit_match(compiled_->code.get(), subject, text.size(), start, 0,
                                                  room.data.get(), room.context.get())
                                : PCRE2_ERROR_JIT_STACKLIMIT;
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
      result = pcre2_match(compiled_->code.get(), subject, text.size(), start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                           room.data.get(), room.context.get());
    }
    if (result == PCRE2_ERROR_NOMATCH) return;
    if (result < 0) throw ConfigError(fmt::format("{}: the pattern gave up: {}", origin_, ErrorText(result)));
    const size_t begin = found[0];
    const size_t end = found[1];
    if (begin == end && end == last_end) {
      start = end + (end < text.size() ? Utf8Length(text[end]) : 1);
      continue;
    }
    matches.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    last_end = end;
    start = end;
  }
}

}  // namespace runahead::tokenizer
