#include "launch/fingerprint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <span>

#include "model/model_loader.h"
#include "model/safetensors.h"
#include "wire/secret.h"

namespace runahead {

std::string ModelFingerprint(const std::filesystem::path& model) {
  constexpr size_t kSample = 64;  // bytes
  std::string text = ReadModelJson(model).dump();
  const WeightFiles weights(model);
  for (const auto& [name, place] : weights.tensors()) {
    text += fmt::format("\n{} {} [{}] ", name, place.tensor->dtype, fmt::join(place.tensor->shape, ","));
    const std::span<const std::byte> bytes = place.file->Bytes(*place.tensor);
    const auto sample = bytes.subspan(bytes.size() / 2, std::min(kSample, bytes.size() - bytes.size() / 2));
    text.append(reinterpret_cast<const char*>(sample.data()), sample.size());
  }
  const Mac sum = MacOf("the fingerprint of a model", {text});
  std::string digits;
  for (size_t i = 0; i < 8; ++i) digits += fmt::format("{:02x}", static_cast<unsigned char>(sum.at(i)));
  return digits;
}

}  // namespace runahead
