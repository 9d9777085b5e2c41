// Pages on disk: found again by what they hold, and whatever happens to their files, the right rows or none.
#include "store/page_store.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <random>

#include "base/file.h"
#include "base/output_file.h"
#include "kv/kv_pages.h"
#include "runahead/error.h"
#include "store/cache_folder.h"
#include "store/page_file.h"
#include "tests/cli/process.h"

namespace runahead {
namespace {

constexpr size_t kRowBytes = 20000;
constexpr size_t kFileBytes = kRowBytes + kPageHeadBytes;
constexpr size_t kPlenty = 1'000'000'000;

/// A text of `pages` pages that no other seed has, its keys and its rows.
struct Sample {
  explicit Sample(unsigned seed, size_t pages = 6, const std::string& model = "model") {
    std::mt19937 random(seed);
    for (size_t i = 0; i < pages * static_cast<size_t>(kPageRows); ++i)
      tokens.push_back(static_cast<int32_t>(random()));
    keys = KeysOf(KeyOf({model}), tokens);
    for (size_t page = 0; page < pages; ++page) {
      std::vector<std::byte>& own = rows.emplace_back(kRowBytes);
      for (std::byte& byte : own) byte = static_cast<std::byte>(random());
    }
  }
  [[nodiscard]] std::span<const int32_t> TokensOf(size_t page) const {
    return std::span(tokens).subspan(page * static_cast<size_t>(kPageRows), static_cast<size_t>(kPageRows));
  }

  std::vector<int32_t> tokens;
  std::vector<PageKey> keys;
  std::vector<std::vector<std::byte>> rows;
};

class PageStoreTest : public testing::Test {
 protected:
  [[nodiscard]] std::string Folder() const { return folder_ / "cache"; }
  [[nodiscard]] PageStore Open(size_t limit = kPlenty, const std::string& model = "model") const {
    return {Folder(), limit, {KeyOf({model}), "about " + model}, kRowBytes};
  }
  [[nodiscard]] std::filesystem::path FileOf(const PageKey& key) const {
    return PagesFolder(Folder(), KeyOf({"model"})) / PageName(key);
  }
  static void WriteAll(PageStore& store, const Sample& sample) {
    for (size_t page = 0; page < sample.keys.size(); ++page) {
      const Status status = store.Write(sample.keys[page], sample.TokensOf(page), sample.rows[page]);
      EXPECT_TRUE(status.ok()) << status.message();
    }
    store.Touch(sample.keys);
  }
  /// Whether the page is read; fails the test when other rows are.
  static bool Reads(const PageStore& store, const Sample& sample, size_t page) {
    std::vector<std::byte> rows(kRowBytes);
    if (!store.Read(sample.keys[page], sample.TokensOf(page), rows)) return false;
    EXPECT_EQ(rows, sample.rows[page]) << "page " << page;
    return true;
  }
  static int64_t PagesIn(const std::vector<StoredPages>& models) {
    int64_t pages = 0;
    for (const StoredPages& model : models) pages += std::ssize(model.pages);
    return pages;
  }

  TemporaryFolder folder_;
};

TEST_F(PageStoreTest, KeysSayTheWholeTextAndTheModel) {
  const Sample sample(1);
  Sample changed(1);
  changed.tokens[3 * static_cast<size_t>(kPageRows) + 7] ^= 1;
  const std::vector<PageKey> keys = KeysOf(KeyOf({"model"}), changed.tokens);
  for (size_t page = 0; page < keys.size(); ++page) EXPECT_EQ(keys[page] == sample.keys[page], page < 3) << page;
  EXPECT_NE(KeysOf(KeyOf({"other"}), sample.tokens).front(), sample.keys.front());
  EXPECT_NE(KeyOf({"ab", "c"}), KeyOf({"a", "bc"}));
  EXPECT_EQ(KeysOf(KeyOf({"model"}), std::span(sample.tokens).first(200)).size(), 1U);
  EXPECT_EQ(PageKey::Parse(sample.keys[0].Hex()), sample.keys[0]);
  EXPECT_EQ(PageKey::Parse(sample.keys[0].Hex().substr(1)), std::nullopt);
  EXPECT_EQ(KeyOf({}).Hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST_F(PageStoreTest, AnotherStoreFindsWhatOneWrote) {
  const Sample sample(1);
  PageStore writer = Open();
  EXPECT_EQ(writer.Count(sample.keys), 0);
  WriteAll(writer, sample);
  const PageStore reader = Open();
  EXPECT_EQ(reader.Count(sample.keys), 6);
  EXPECT_EQ(reader.Count(Sample(2).keys), 0);
  for (size_t page = 0; page < 6; ++page) EXPECT_TRUE(Reads(reader, sample, page));
  EXPECT_EQ(Open(kPlenty, "other").Count(sample.keys), 0) << "another model's";
  std::filesystem::remove(FileOf(sample.keys[2]));
  EXPECT_EQ(reader.Count(sample.keys), 2);
}

TEST_F(PageStoreTest, WhateverBecomesOfAFileItIsRightOrMissed) {
  const Sample sample(1);
  PageStore store = Open();
  WriteAll(store, sample);
  const std::string whole = ReadFile(FileOf(sample.keys[0]));
  ASSERT_EQ(whole.size(), kFileBytes);
  std::mt19937 random(5);
  const auto missed = [&](const std::string& bytes, const std::string& what) {
    WriteFile(FileOf(sample.keys[0]), bytes);
    EXPECT_FALSE(Reads(store, sample, 0)) << what;
    EXPECT_EQ(store.Count(sample.keys), 0) << what << ": it shall not be found again";
  };
  for (int i = 0; i < 300; ++i) {
    std::string bytes = whole;
    const size_t at = i < 100 ? random() % kPageHeadBytes : random() % kFileBytes;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
    missed(bytes, "a bit flipped in byte " + std::to_string(at));
  }
  for (int i = 0; i < 100; ++i) missed(whole.substr(0, random() % kFileBytes), "cut");
  missed(whole + "x", "longer");
  missed("", "empty");
  missed(ReadFile(FileOf(sample.keys[1])), "another page");
  std::string swapped = ReadFile(FileOf(sample.keys[1]));
  swapped.replace(0, kPageHeadBytes, whole, 0, kPageHeadBytes);
  missed(swapped, "the rows of another page");
  WriteFile(FileOf(sample.keys[0]), whole);
  EXPECT_TRUE(Reads(store, sample, 0));
  std::filesystem::remove(FileOf(sample.keys[0]));
  std::filesystem::create_directory(FileOf(sample.keys[0]));
  EXPECT_FALSE(Reads(store, sample, 0)) << "a folder";
}

TEST_F(PageStoreTest, WhatIsReadIsOfTheseTokens) {
  const Sample sample(1);
  PageStore store = Open();
  WriteAll(store, sample);
  std::vector<int32_t> tokens(sample.TokensOf(0).begin(), sample.TokensOf(0).end());
  tokens[5] += 1;
  std::vector<std::byte> rows(kRowBytes);
  EXPECT_FALSE(store.Read(sample.keys[0], tokens, rows));
}

TEST_F(PageStoreTest, WhatWasUsedLeastRecentlyGoesFirst) {
  const Sample first(1);
  const Sample second(2);
  const Sample third(3);
  PageStore store = Open(14 * kFileBytes);
  WriteAll(store, first);
  WriteAll(store, second);
  store.MakeRoom();
  EXPECT_EQ(store.Count(first.keys) + store.Count(second.keys), 12);
  store.Touch(first.keys);
  WriteAll(store, third);
  store.MakeRoom();
  EXPECT_EQ(PagesIn(ReadCacheFolder(Folder())), 13) << "the limit, less room for what is written next";
  EXPECT_EQ(store.Count(third.keys), 6);
  EXPECT_EQ(store.Count(first.keys), 6);
  EXPECT_EQ(store.Count(second.keys), 1) << "a page goes after those behind it";
  EXPECT_EQ(store.most_pages(), 13);
}

TEST_F(PageStoreTest, ModelsShareTheLimit) {
  const Sample own(1, 6, "model");
  const Sample others(1, 6, "other");
  PageStore store = Open(8 * kFileBytes);
  PageStore other = Open(8 * kFileBytes, "other");
  WriteAll(other, others);
  WriteAll(store, own);
  store.MakeRoom();
  EXPECT_EQ(store.Count(own.keys), 6);
  EXPECT_EQ(other.Count(others.keys), 1);
  const std::vector<StoredPages> models = ReadCacheFolder(Folder());
  ASSERT_EQ(models.size(), 2U);
  for (const StoredPages& model : models) {
    EXPECT_TRUE(model.about == "about model" || model.about == "about other") << model.about;
  }
}

/// Runs `work` in a process of its own, which `parent` is told the id of, and returns how it ended.
template <typename Work, typename Parent>
int InAProcess(Work&& work, Parent&& parent) {
  const pid_t child = ::fork();
  if (child == 0) {
    work();
    ::_exit(0);
  }
  parent(child);
  int how = 0;
  while (::waitpid(child, &how, 0) < 0 && errno == EINTR) {
  }
  return how;
}

// Two processes write and give up the same pages, and one of them is killed at any moment.
TEST_F(PageStoreTest, WritersThatAreKilledLeaveRightPagesOrNone) {
  const Sample sample(1);
  const size_t limit = 8 * kFileBytes;
  std::mt19937 random(9);
  int64_t read = 0;
  for (int kill = 0; kill < 60; ++kill) {
    const auto write = [&] {
      PageStore store = Open(limit);
      for (unsigned turn = 0; turn < 10'000; ++turn) {
        const size_t page = (turn + static_cast<unsigned>(kill)) % sample.keys.size();
        (void)store.Write(sample.keys[page], sample.TokensOf(page), sample.rows[page]);
        if (turn % 5 == 4) store.MakeRoom();
      }
    };
    const auto look_and_kill = [&](pid_t child) {
      PageStore store = Open(limit);
      const int looks = static_cast<int>(random() % 40);
      for (int look = 0; look < looks; ++look) {
        const size_t page = random() % sample.keys.size();
        read += Reads(store, sample, page) ? 1 : 0;
        if (look % 8 == 7) (void)store.Write(sample.keys[page], sample.TokensOf(page), sample.rows[page]);
      }
      ::kill(child, SIGKILL);
    };
    EXPECT_EQ(WTERMSIG(InAProcess(write, look_and_kill)), SIGKILL);
    const std::vector<DamagedPage> damaged = VerifyPages(ReadCacheFolder(Folder()), [](size_t) {});
    ASSERT_TRUE(damaged.empty()) << damaged.front().path << ": " << damaged.front().reason;
  }
  EXPECT_GT(read, 0);
}

TEST_F(PageStoreTest, ADiskWithoutRoomIsAMiss) {
  const Sample sample(1);
  { PageStore store = Open(); }
  const auto write = [&] {
    ::signal(SIGXFSZ, SIG_IGN);  // a file that grows beyond the limit fails then, as on a full disk
    const rlimit room{kFileBytes / 2, kFileBytes / 2};
    ::setrlimit(RLIMIT_FSIZE, &room);
    PageStore store = Open();
    const Status status = store.Write(sample.keys[0], sample.TokensOf(0), sample.rows[0]);
    ::_exit(!status.ok() && status.message().find(Folder()) == 0 && store.Count(sample.keys) == 0 ? 0 : 1);
  };
  EXPECT_EQ(InAProcess(write, [](pid_t) {}), 0);
  PageStore store = Open();
  EXPECT_EQ(PagesIn(ReadCacheFolder(Folder())), 0);
  WriteAll(store, sample);
  EXPECT_EQ(store.Count(sample.keys), 6);
}

TEST_F(PageStoreTest, WhatKilledProcessesLeftGoesOnceItIsOld) {
  const Sample sample(1);
  PageStore store = Open();
  WriteAll(store, sample);
  const std::filesystem::path fresh = FileOf(sample.keys[0]).parent_path() / ".runahead-1-1.partial";
  const std::filesystem::path old = FileOf(sample.keys[0]).parent_path() / ".runahead-1-2.partial";
  ASSERT_TRUE(IsPartialFile(fresh.filename().string()));
  WriteFile(fresh, "a part");
  WriteFile(old, "a part");
  std::filesystem::last_write_time(old, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  EXPECT_EQ(PagesIn(ReadCacheFolder(Folder())), 6);
  EXPECT_TRUE(std::filesystem::exists(fresh));
  EXPECT_FALSE(std::filesystem::exists(old));
}

TEST_F(PageStoreTest, VerifyNamesAndRemovesDamagedPages) {
  const Sample sample(1);
  PageStore store = Open();
  WriteAll(store, sample);
  std::string bytes = ReadFile(FileOf(sample.keys[3]));
  bytes[kFileBytes / 2] ^= 1;
  WriteFile(FileOf(sample.keys[3]), bytes);
  WriteFile(FileOf(sample.keys[4]), bytes);
  WriteFile(std::filesystem::path(Folder()) / "notes.txt", "of the user's");
  size_t told = 0;
  const std::vector<DamagedPage> damaged = VerifyPages(ReadCacheFolder(Folder()), [&](size_t size) { told += size; });
  EXPECT_EQ(told, 6 * kFileBytes);
  ASSERT_EQ(damaged.size(), 2U);
  EXPECT_EQ(store.Count(sample.keys), 3);
  DropPages(Folder(), ReadCacheFolder(Folder()));
  EXPECT_EQ(PagesIn(ReadCacheFolder(Folder())), 0);
  EXPECT_TRUE(std::filesystem::exists(std::filesystem::path(Folder()) / "notes.txt"));
  WriteAll(store, sample);
  EXPECT_EQ(store.Count(sample.keys), 6) << "a store goes on in a folder that was emptied";
}

TEST_F(PageStoreTest, AFolderThatCannotBeMadeIsNamed) {
  const std::string file = folder_ / "file";
  WriteFile(file, "");
  try {
    const PageStore store(file, kPlenty, {KeyOf({"model"}), ""}, kRowBytes);
    FAIL() << "a file is no folder";
  } catch (const IoError& error) {
    EXPECT_NE(std::string(error.what()).find(file), std::string::npos) << error.what();
  }
  EXPECT_THROW((void)ReadCacheFolder(folder_ / "nothing"), IoError);
}

}  // namespace
}  // namespace runahead
