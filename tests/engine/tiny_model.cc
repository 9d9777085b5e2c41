#include "tests/engine/tiny_model.h"

#include <fmt/format.h>
#include <unistd.h>

#include "model/make_model.h"

namespace runahead {
namespace {

struct TemporaryModel {
  std::filesystem::path folder = std::filesystem::temp_directory_path() / fmt::format("runahead-tiny-{}", ::getpid());

  TemporaryModel() { MakeModel("tiny-llama", folder, /*seed=*/1); }
  ~TemporaryModel() {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }
};

}  // namespace

const std::filesystem::path& TinyModelFolder() {
  static const TemporaryModel model;
  return model.folder;
}

}  // namespace runahead
