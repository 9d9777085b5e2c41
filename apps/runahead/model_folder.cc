#include "model_folder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/file.h"
#include "output.h"
#include "runahead/error.h"

namespace runahead::cli {
namespace {

std::string ReadStdin() {
  std::string content;
  std::array<char, 1 << 16> block;
  while (true) {
    const ssize_t got = ::read(STDIN_FILENO, block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw IoError(fmt::format("stdin: cannot read: {}", std::strerror(errno)));
    if (got == 0) return content;
    content.append(block.data(), static_cast<size_t>(got));
  }
}

}  // namespace

std::optional<Tokenizer> LoadTokenizer(const std::filesystem::path& model) {
  std::error_code error;
  const bool exists = std::filesystem::exists(model / "tokenizer.json", error) ||
                      std::filesystem::exists(model / "tokenizer.model", error);
  if (!exists) return std::nullopt;
  return Tokenizer::Load(model);
}

Engine LoadEngine(const std::filesystem::path& model, EngineOptions options) {
  Progress progress("loading the weights");
  options.on_load_progress = [&progress](double share) { progress.Show(share); };
  return Engine::Load(model, options);
}

std::string ReadInput(const std::string& path) { return path == "-" ? ReadStdin() : ReadFile(path); }

}  // namespace runahead::cli
