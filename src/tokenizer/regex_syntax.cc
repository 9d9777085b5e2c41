#include "tokenizer/regex_syntax.h"

#include <fmt/format.h>

#include <array>
#include <cctype>

#include "runahead/error.h"

namespace runahead::tokenizer {
namespace {

// PCRE2's own \s takes in U+180E and its \w leaves out marks, so both are spelt out; each as items of a class.
constexpr std::string_view kSpaces =
    R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpaces =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view origin) : pattern_(pattern), origin_(origin) {}

  std::string Run() {
    while (at_ < pattern_.size()) {
      if (in_class_) {
        ClassItem();
      } else {
        Item();
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void Refuse(std::string_view what) const {
    throw ConfigError(fmt::format("{}: {} at offset {} of the regular expression is not supported, got {}", origin_,
                                  what, at_, pattern_));
  }

  [[nodiscard]] bool Ahead(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }

  void Copy(size_t count) {
    out_ += pattern_.substr(at_, count);
    at_ += count;
  }

  void Replace(size_t count, std::string_view with) {
    out_ += with;
    at_ += count;
  }

  void Item() {
    switch (pattern_[at_]) {
      case '\\':
        Escape();
        break;
      case '[':
        in_class_ = true;
        Copy(1);
        if (at_ < pattern_.size() && pattern_[at_] == '^') Copy(1);
        if (at_ < pattern_.size() && pattern_[at_] == ']') Refuse("a class that starts with ]");
        break;
      case '(':
        Group();
        break;
      case '{':
        Interval();
        break;
      default:
        Copy(1);
    }
  }

  void ClassItem() {
    if (Ahead("[") || Ahead("&&")) Refuse("a class inside a class");
    if (pattern_[at_] == '\\') {
      Escape();
      return;
    }
    if (pattern_[at_] == ']') in_class_ = false;
    Copy(1);
  }

  void Group() {
    static constexpr std::array<std::string_view, 8> kKnown = {
        "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"};
    if (!Ahead("(?") && !Ahead("(*")) return Copy(1);
    for (const std::string_view known : kKnown) {
      if (Ahead(known)) return Copy(known.size());
    }
    if (at_ == 0 && Ahead("(?i)")) return Copy(4);  // elsewhere its reach differs
    Refuse("this kind of group");
  }

  // {n}, {n,}, {,m} and {n,m}; a ? or + behind one means different things to the two engines.
  void Interval() {
    const size_t close = pattern_.find('}', at_);
    const std::string_view body = close == std::string_view::npos ? "" : pattern_.substr(at_ + 1, close - at_ - 1);
    if (body.empty() || body == "," || body.find_first_not_of("0123456789,") != std::string_view::npos) {
      return Replace(1, "\\{");
    }
    const bool open = body[0] == ',';
    at_ = close + 1;
    out_ += fmt::format("{{{}{}}}", open ? "0" : "", body);
    if (Ahead("?") || Ahead("+")) Refuse("a quantifier behind an interval");
  }

  void Escape() {
    if (at_ + 1 >= pattern_.size()) Refuse("a backslash at the end");
    const char kind = pattern_[at_ + 1];
    if (std::isalnum(static_cast<unsigned char>(kind)) == 0) return Copy(2);
    switch (kind) {
      case 's':
        return Class(kSpaces, false);
      case 'S':
        return in_class_ ? Class(kNotSpaces, false) : Class(kSpaces, true);
      case 'w':
        return Class(kWord, false);
      case 'W':
        if (in_class_) Refuse("\\W in a class");
        return Class(kWord, true);
      case 'd':
        return Replace(2, "\\p{Nd}");
      case 'D':
        return Replace(2, "\\P{Nd}");
      case 'v':
        return Replace(2, "\\x{b}");
      case 'p':
      case 'P':
        return Property();
      case 'u':
      case 'x':
        return CodePoint();
      case 't':
      case 'n':
      case 'r':
      case 'f':
      case 'a':
      case 'e':
        return Copy(2);
      case 'A':
      case 'z':
      case 'Z':
      case 'b':
      case 'B':
        if (in_class_) Refuse(fmt::format("\\{} in a class", kind));
        return kind == 'b' ? WordEdge("!", "=") : kind == 'B' ? WordEdge("=", "!") : Copy(2);
      default:
        Refuse(fmt::format("\\{}", kind));
    }
  }

  void Class(std::string_view items, bool negated) {
    if (in_class_) return Replace(2, items);
    Replace(2, fmt::format("[{}{}]", negated ? "^" : "", items));
  }

  // A place with a word character on one side only (`\b`), or on both sides or neither (`\B`).
  void WordEdge(std::string_view first, std::string_view second) {
    Replace(2, fmt::format("(?:(?<=[{0}])(?{1}[{0}])|(?<![{0}])(?{2}[{0}]))", kWord, first, second));
  }

  // General categories go through. Any other name must be a script, which Oniguruma takes without extensions.
  void Property() {
    const size_t close = pattern_.find('}', at_);
    if (!Ahead("\\p{") && !Ahead("\\P{")) Refuse("a property without braces");
    if (close == std::string_view::npos) Refuse("a property without an end");
    std::string_view name = pattern_.substr(at_ + 3, close - at_ - 3);
    bool negated = pattern_[at_ + 1] == 'P';
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    Replace(close + 1 - at_, fmt::format("\\{}{{{}{}}}", negated ? 'P' : 'p', name.size() > 2 ? "sc:" : "", name));
  }

  // \uHHHH, \x{H...}, and \xHH for ASCII (beyond it, Oniguruma means a byte).
  void CodePoint() {
    std::string_view digits;
    size_t length = 0;
    if (Ahead("\\x{")) {
      const size_t close = pattern_.find('}', at_);
      if (close == std::string_view::npos) Refuse("\\x{ without an end");
      digits = pattern_.substr(at_ + 3, close - at_ - 3);
      length = close + 1 - at_;
    } else {
      const size_t count = pattern_[at_ + 1] == 'u' ? 4 : 2;
      digits = pattern_.substr(at_ + 2, count);
      length = 2 + count;
      if (digits.size() != count || (count == 2 && digits[0] >= '8')) Refuse("this \\x or \\u");
    }
    for (const char digit : digits) {
      if (std::isxdigit(static_cast<unsigned char>(digit)) == 0) Refuse("this \\x or \\u");
    }
    if (digits.empty() || digits.size() > 8) Refuse("this \\x or \\u");
    Replace(length, fmt::format("\\x{{{}}}", digits));
  }

  std::string_view pattern_;
  std::string_view origin_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

std::string TranslateRegex(std::string_view pattern, std::string_view origin) {
  return Translator(pattern, origin).Run();
}

}  // namespace runahead::tokenizer
