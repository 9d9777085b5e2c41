#include "store/model_content.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <atomic>
#include <future>
#include <string>
#include <system_error>
#include <vector>

#include "model/model_loader.h"
#include "model/safetensors.h"
#include "store/page_file.h"
#include "tensor/cpu_device.h"

namespace runahead {
namespace {

/// A part of a tensor that one thread adds up.
struct Part {
  std::span<const std::byte> bytes;
  PageSum sum{};
};

void AddUp(std::vector<Part>& parts) {
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < parts.size(); i = next++) parts[i].sum = SumOf(parts[i].bytes);
  };
  std::vector<std::future<void>> others;
  try {
    for (size_t i = 1; i < AvailableProcessors().size(); ++i) others.push_back(std::async(std::launch::async, work));
  } catch (const std::system_error&) {  // no more threads: those that there are do it
  }
  work();
}

}  // namespace

PageKey ContentOf(const std::filesystem::path& model) {
  constexpr size_t kPartBytes = size_t{64} << 20;
  const WeightFiles weights(model);
  std::string tensors;
  std::vector<Part> parts;
  for (const auto& [name, place] : weights.tensors()) {
    tensors += fmt::format("{} {} [{}]\n", name, place.tensor->dtype, fmt::join(place.tensor->shape, ","));
    std::span<const std::byte> rest = place.file->Bytes(*place.tensor);
    while (!rest.empty()) {
      const size_t bytes = std::min(rest.size(), kPartBytes);
      parts.push_back({rest.first(bytes), {}});
      rest = rest.subspan(bytes);
    }
  }
  AddUp(parts);
  std::vector<PageSum> sums;
  for (const Part& part : parts) sums.push_back(part.sum);
  const std::string_view bytes(reinterpret_cast<const char*>(sums.data()), sums.size() * sizeof(PageSum));
  return KeyOf({ReadModelJson(model).dump(), tensors, bytes});
}

}  // namespace runahead
