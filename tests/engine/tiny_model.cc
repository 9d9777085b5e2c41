#include "tests/engine/tiny_model.h"

#include <fmt/format.h>
#include <unistd.h>

#include <map>

#include "model/make_model.h"

namespace runahead {
namespace {

struct TemporaryModel {
  std::filesystem::path folder;

  explicit TemporaryModel(const std::string& preset)
      : folder(std::filesystem::temp_directory_path() / fmt::format("runahead-{}-{}", preset, ::getpid())) {
    MakeModel(preset, folder, /*seed=*/1);
  }
  ~TemporaryModel() {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }
};

}  // namespace

const std::filesystem::path& TinyModelFolder(const std::string& preset) {
  static std::map<std::string, TemporaryModel> models;
  return models.try_emplace(preset, preset).first->second.folder;
}

}  // namespace runahead
