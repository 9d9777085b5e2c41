#include "wire/bytes.h"

#include <fmt/format.h>

namespace runahead {

Status ByteReader::End() const {
  if (!ok()) return Status::Failed(wrong_);
  if (!rest_.empty()) return Status::Failed(fmt::format("{} bytes too many", rest_.size()));
  return Status::Ok();
}

void ByteReader::Refuse(std::string what) {
  if (ok()) wrong_ = std::move(what);
  rest_ = {};
}

bool ByteReader::Has(size_t bytes, const char* name) {
  if (ok() && rest_.size() >= bytes) return true;
  Refuse(fmt::format("{}: the message ends in it", name));
  return false;
}

bool ByteReader::GetBool(const char* name) {
  const auto value = Get<uint8_t>(name);
  if (value > 1) Refuse(fmt::format("{}: no value {}", name, value));
  return value == 1;
}

std::string ByteReader::GetText(const char* name) {
  const size_t bytes = GetCount(1, name);
  std::string text(rest_.substr(0, bytes));
  rest_.remove_prefix(text.size());
  return text;
}

size_t ByteReader::GetCount(size_t bytes_each, const char* name) {
  const auto count = Get<uint64_t>(name);
  if (count <= rest_.size() / bytes_each) return count;
  Refuse(fmt::format("{}: {} of them in {} bytes", name, count, rest_.size()));
  return 0;
}

}  // namespace runahead
