// Fuzzes what a cache folder may hold: an input is the file of a page, or behind an 'n' a file's name and, after a
// line's end, what it holds, anywhere in the folder. Only the right page is ever read.
#include <cstdint>
#include <vector>

#include "base/file.h"
#include "fuzz_folder.h"
#include "store/cache_folder.h"
#include "store/page_file.h"
#include "store/page_store.h"

namespace {

using namespace runahead;

constexpr size_t kRowBytes = 64;

/// The one page that the store is asked for.
struct Page {
  std::vector<int32_t> tokens = std::vector<int32_t>(static_cast<size_t>(kPageRows), 7);
  PageKey root = KeyOf({"fuzz"});
  PageKey key = KeysOf(root, tokens).front();
  std::vector<std::byte> rows = std::vector<std::byte>(kRowBytes, std::byte{1});
};

/// Whether `name` stays within the folder, and is not that of something that the target itself needs.
bool MayBeWritten(const std::string& name) {
  return !name.empty() && name.size() < 200 && name.find("..") == std::string::npos && name.front() != '/' &&
         name.find('\0') == std::string::npos;
}

void Put(const std::filesystem::path& path, std::string_view content) {
  std::error_code ignored;
  std::filesystem::create_directories(path.parent_path(), ignored);
  try {
    WriteFile(path, content);
  } catch (const Error&) {  // the name of a folder
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Page page;
  std::string_view input = fuzz::TextOf(data, size);
  const std::filesystem::path folder = fuzz::Folder() / "cache";
  const std::filesystem::path pages = PagesFolder(folder, page.root);
  std::filesystem::remove_all(folder);
  Put(AboutFile(pages), "a page\n");  // which the store would sync
  if (input.starts_with('n') && input.find('\n') != std::string_view::npos) {
    const std::string name(input.substr(1, input.find('\n') - 1));
    input.remove_prefix(name.size() + 2);
    if (MayBeWritten(name)) Put(folder / "kv-pages-1" / name, input);
  } else {
    Put(pages / PageName(page.key), input);
    PageHead head;
    if (Decode(input.substr(0, kPageHeadBytes), head).ok() && Encode(head) != input.substr(0, kPageHeadBytes)) {
      __builtin_trap();
    }
  }
  fuzz::MayRefuse([&] {
    const std::vector<StoredPages> models = ReadCacheFolder(folder);
    for (const StoredPages& model : models) (void)model.used_ns();
    PageStore store(folder, 1000, {page.root, "a page"}, kRowBytes);
    std::vector<std::byte> rows(kRowBytes);
    const bool right = CheckPageFile(input, page.key).ok();
    if (store.Read(page.key, page.tokens, rows) && !right) __builtin_trap();
    (void)VerifyPages(models, [](size_t) {});
    store.MakeRoom();
  });
  return 0;
}
