// Files of hosts.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <system_error>

#include "launch/starter.h"
#include "runahead/error.h"

namespace runahead {

std::vector<std::string> ParseHosts(std::string_view text, const std::string& origin) {
  constexpr int kMostSlots = 4096;
  std::vector<std::string> hosts;
  int number = 0;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    ++number;
    line = line.substr(0, line.find('#'));
    const auto word = [&] {
      line.remove_prefix(std::min(line.size(), line.find_first_not_of(" \t\r")));
      const std::string_view first = line.substr(0, line.find_first_of(" \t\r"));
      line.remove_prefix(first.size());
      return first;
    };
    const std::string_view host = word();
    const std::string_view slots = word();
    if (host.empty()) continue;
    int count = 1;
    if (!slots.empty()) {
      const std::string_view digits = slots.starts_with("slots=") ? slots.substr(6) : "";
      const auto [end, wrong] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
      if (digits.empty() || wrong != std::errc() || end != digits.data() + digits.size() || count < 1 ||
          count > kMostSlots) {
        throw ConfigError(fmt::format("{}:{}: '{}': slots=N is wanted behind a host", origin, number, slots));
      }
    }
    if (host.starts_with('-')) throw ConfigError(fmt::format("{}:{}: '{}' is no host", origin, number, host));
    hosts.insert(hosts.end(), static_cast<size_t>(count), std::string(host));
  }
  if (hosts.empty()) throw ConfigError(fmt::format("{}: no hosts", origin));
  return hosts;
}

}  // namespace runahead
