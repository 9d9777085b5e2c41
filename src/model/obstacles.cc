#include "model/obstacles.h"

#include <algorithm>

#include "base/gguf_file.h"
#include "model/architectures.h"
#include "model/architectures/common.h"
#include "model/model_info.h"
#include "model/safetensors.h"

namespace runahead {
namespace {

/// Lines, each once.
class Lines {
 public:
  void Add(std::string line) {
    if (std::find(all_.begin(), all_.end(), line) == all_.end()) all_.push_back(std::move(line));
  }
  /// Adds what `read` throws; whether it threw nothing.
  template <typename Read>
  bool Try(const Read& read) {
    try {
      read();
      return true;
    } catch (const Error& error) {
      Add(error.what());
      return false;
    }
  }
  [[nodiscard]] bool empty() const { return all_.empty(); }
  std::vector<std::string> Take() { return std::move(all_); }

 private:
  std::vector<std::string> all_;
};

/// Reads `config` as a family does, again and again without the field that it refused last.
void TryFields(const Architecture& family, Json config, const std::string& origin, Lines& lines) {
  for (size_t fields = config.size(); fields > 0; --fields) {
    try {
      (void)family.parse(JsonObject(config, origin));
      return;
    } catch (const FieldError& refusal) {
      // A missing one, or one of an object inside, hides what comes behind it.
      lines.Add(refusal.what());
      if (config.erase(refusal.field()) == 0) return;
    } catch (const Error& refusal) {
      return lines.Add(refusal.what());
    }
  }
}

}  // namespace

std::vector<std::string> Obstacles(const std::filesystem::path& dir, const Json& config) {
  const std::string origin = (IsGgufPath(dir) ? dir : dir / "config.json").string();
  Lines lines;
  const bool is_object = lines.Try([&] { (void)JsonObject(config, origin); });
  if (is_object) {
    const JsonObject object(config, origin);
    const Architecture* family = nullptr;
    lines.Try([&] { family = &FindArchitecture(object); });
    if (family != nullptr) TryFields(*family, config, origin, lines);
    lines.Try([&] { (void)ScaleBlockOfWeights(object); });
  }
  if (lines.empty()) {
    lines.Try([&] { (void)DescribeModel(ModelConfig(dir, config)); });
  } else {
    lines.Try([&] { (void)WeightFiles(dir); });
  }
  return lines.Take();
}

}  // namespace runahead
