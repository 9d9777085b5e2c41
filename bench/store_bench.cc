// How fast pages are found, read and written on disk. The folder, of 10 GB by its files' sizes, is made in $TMPDIR
// and goes at the end; all of its files but those that are read are holes.
//   store_bench
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "base/file.h"
#include "kv/kv_pages.h"
#include "store/cache_folder.h"
#include "store/page_store.h"

namespace runahead {
namespace {

constexpr size_t kRowBytes = 196'608;  // a page of the demo's model in bf16
constexpr size_t kPages = 51'200;
constexpr size_t kDocument = 63;  // pages of 8,064 tokens

/// A folder with many pages, the first of which are a document's.
class Folder {
 public:
  Folder() {
    std::mt19937 random(1);
    tokens_.resize(kDocument * static_cast<size_t>(kPageRows));
    for (int32_t& token : tokens_) token = static_cast<int32_t>(random() % 1000);
    keys_ = KeysOf(Root(), tokens_);
    for (size_t page = 0; page < kDocument; ++page) {
      if (!store_.Write(keys_[page], TokensOf(page), rows_).ok()) std::abort();
    }
    for (size_t page = kDocument; page < kPages; ++page) {
      const std::filesystem::path path = PagesFolder(path_, Root()) / PageName(KeyOf({std::to_string(page)}));
      std::filesystem::create_directories(path.parent_path());
      WriteFile(path, "");
      std::filesystem::resize_file(path, kRowBytes);
    }
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  [[nodiscard]] std::span<const int32_t> tokens() const { return tokens_; }
  [[nodiscard]] const std::vector<PageKey>& keys() const { return keys_; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::span<const int32_t> TokensOf(size_t page) const {
    return tokens().subspan(page * static_cast<size_t>(kPageRows), static_cast<size_t>(kPageRows));
  }
  PageStore& store() { return store_; }
  std::vector<std::byte>& rows() { return rows_; }
  static PageKey Root() { return KeyOf({"bench"}); }

 private:
  std::filesystem::path path_ =
      std::filesystem::temp_directory_path() / ("runahead-store-bench-" + std::to_string(::getpid()));
  PageStore store_{path_, size_t{1} << 40, {Root(), "bench"}, kRowBytes};
  std::vector<int32_t> tokens_;
  std::vector<PageKey> keys_;
  std::vector<std::byte> rows_ = std::vector<std::byte>(kRowBytes, std::byte{3});
};

Folder& TheFolder() {
  static Folder folder;
  return folder;
}

/// Names and looks up all pages of a document.
void LookUp(benchmark::State& state) {
  Folder& folder = TheFolder();
  for (auto _ : state) {
    const std::vector<PageKey> keys = KeysOf(Folder::Root(), folder.tokens());
    if (folder.store().Count(keys) != static_cast<int64_t>(kDocument)) state.SkipWithError("a page is missing");
  }
}
BENCHMARK(LookUp)->Unit(benchmark::kMicrosecond);

void ReadPage(benchmark::State& state) {
  Folder& folder = TheFolder();
  size_t page = 0;
  for (auto _ : state) {
    if (!folder.store().Read(folder.keys()[page], folder.TokensOf(page), folder.rows())) {
      state.SkipWithError("a page is missing");
    }
    page = (page + 1) % kDocument;
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kRowBytes));
}
BENCHMARK(ReadPage)->Unit(benchmark::kMicrosecond);

void WritePage(benchmark::State& state) {
  Folder& folder = TheFolder();
  for (auto _ : state) {
    if (!folder.store().Write(folder.keys()[0], folder.TokensOf(0), folder.rows()).ok()) {
      state.SkipWithError("not written");
    }
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kRowBytes));
}
BENCHMARK(WritePage)->Unit(benchmark::kMicrosecond)->UseRealTime();

/// What bounds the folder's size looks at all files.
void ReadFolder(benchmark::State& state) {
  Folder& folder = TheFolder();
  for (auto _ : state) {
    if (ReadCacheFolder(folder.path()).at(0).pages.size() != kPages) state.SkipWithError("pages are missing");
  }
}
BENCHMARK(ReadFolder)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace runahead

BENCHMARK_MAIN();
