// Names of pages by what they hold: the rows of a model's tokens, from the first token on.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace runahead {

/// A SHA-256 sum: nobody finds two contents with the same one.
struct PageKey {
  std::array<unsigned char, 32> bytes{};

  /// 64 hexadecimal digits.
  [[nodiscard]] std::string Hex() const;
  /// What Hex wrote; nothing for any other text.
  static std::optional<PageKey> Parse(std::string_view hex);
  friend bool operator==(const PageKey&, const PageKey&) = default;
};

/// The sum of `parts` with their lengths, so that no part runs into the next.
PageKey KeyOf(std::initializer_list<std::string_view> parts);

/// The keys of the whole pages of `tokens`, each of kPageRows: a page's key is the sum of the key before it, for the
/// first one `root`, and of its tokens.
std::vector<PageKey> KeysOf(const PageKey& root, std::span<const int32_t> tokens);

}  // namespace runahead
