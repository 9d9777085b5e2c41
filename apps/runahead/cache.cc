// `runahead cache`: what a folder of --cache-dir holds.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <memory>

#include "base/json.h"
#include "command.h"
#include "output.h"
#include "report/table.h"
#include "report/units.h"
#include "runahead/error.h"
#include "store/cache_folder.h"

namespace runahead::cli {
namespace {

struct CacheFlags {
  std::string action;
  std::string folder;
  std::string id;  // of one model, or how it begins; empty: all
  bool json = false;
};

constexpr int64_t kSecond = 1'000'000'000;  // ns
constexpr size_t kShownDigits = 12;         // of a model's id

/// The models that the flags mean. Throws ConfigError where there is none.
std::vector<StoredPages> Chosen(const CacheFlags& flags) {
  std::vector<StoredPages> models = ReadCacheFolder(flags.folder);
  std::erase_if(models, [&](const StoredPages& model) { return !model.id.starts_with(flags.id); });
  if (models.empty() && !flags.id.empty()) {
    throw ConfigError(fmt::format("--id: no model in {} has one that begins with '{}'", flags.folder, flags.id));
  }
  return models;
}

std::string TimeOf(int64_t ns) {
  return ns == 0 ? "" : fmt::format("{:%Y-%m-%d %H:%M}", fmt::localtime(static_cast<std::time_t>(ns / kSecond)));
}

int List(const CacheFlags& flags) {
  const std::vector<StoredPages> models = Chosen(flags);
  if (flags.json) {
    Json list = Json::array();
    for (const StoredPages& model : models) {
      list.push_back({{"id", model.id},
                      {"about", model.about},
                      {"pages", model.pages.size()},
                      {"bytes", model.bytes()},
                      {"used", model.used_ns() / kSecond}});
    }
    WriteOut(list.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const StoredPages& model : models) {
    rows.push_back({model.id.substr(0, kShownDigits), model.about, report::Grouped(std::ssize(model.pages)),
                    report::Bytes(model.bytes()), TimeOf(model.used_ns())});
  }
  constexpr auto kLeft = report::Align::kLeft;
  WriteOut(report::FormatTable({{"id", kLeft}, {"model", kLeft}, {"pages"}, {"size"}, {"last used"}}, rows));
  return 0;
}

int Verify(const CacheFlags& flags) {
  const std::vector<StoredPages> models = Chosen(flags);
  size_t all = 0;
  size_t pages = 0;
  for (const StoredPages& model : models) {
    all += model.bytes();
    pages += model.pages.size();
  }
  std::vector<DamagedPage> damaged;
  {
    Progress progress("checking pages");
    size_t done = 0;
    damaged = VerifyPages(models, [&](size_t bytes) {
      done += bytes;
      progress.Show(static_cast<double>(done) / static_cast<double>(all));
    });
  }
  if (flags.json) {
    Json list = Json::array();
    for (const DamagedPage& page : damaged) list.push_back({{"path", page.path.string()}, {"reason", page.reason}});
    WriteOut(Json({{"pages", pages}, {"damaged", list}}).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  } else {
    for (const DamagedPage& page : damaged) WriteOut(fmt::format("{}: {}\n", page.path.string(), page.reason));
    WriteOut(fmt::format("{} pages, {} damaged\n", report::Grouped(static_cast<int64_t>(pages)),
                         report::Grouped(std::ssize(damaged))));
  }
  return damaged.empty() ? 0 : kFailed;
}

int Drop(const CacheFlags& flags) {
  const std::vector<StoredPages> models = Chosen(flags);
  DropPages(flags.folder, models);
  if (flags.json) WriteOut(Json({{"models", models.size()}}).dump() + "\n");
  return 0;
}

int RunCache(const CacheFlags& flags) {
  if (flags.action == "list") return List(flags);
  if (flags.action == "verify") return Verify(flags);
  if (flags.action == "drop") return Drop(flags);
  throw ConfigError(fmt::format("cache: expected list, verify or drop, got '{}'", flags.action));
}

}  // namespace

Action AddCache(CLI::App& command) {
  auto flags = std::make_shared<CacheFlags>();
  command
      .add_option("action", flags->action,
                  "list: what is there; verify: read all pages and remove those that are damaged; drop: remove all")
      ->required()
      ->type_name("ACTION");
  command.add_option("--cache-dir", flags->folder, "The folder")->required()->type_name("DIR");
  command.add_option("--id", flags->id, "Only pages of the model with this id, or whose id begins so [all]")
      ->type_name("ID");
  command.add_flag("--json", flags->json, "Print JSON instead of text");
  return [flags] { return RunCache(*flags); };
}

}  // namespace runahead::cli
