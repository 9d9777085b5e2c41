#include "engine/page_archive.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "kv/kv_pages.h"
#include "runahead/version.h"
#include "store/model_content.h"

namespace runahead {
namespace {

constexpr auto kPatience = std::chrono::seconds(60);  // for saves that are left at the end

/// What rows of equal bits have in common besides the model's content: how they are computed. Processors with other
/// instructions may round otherwise, as may later versions.
std::string ComputedBy(EngineState& engine, const EngineOptions& options) {
  const BuildInfo build = DescribeBuild();
  const Decoder& decoder = engine.decoder();
  const KvShape shape = decoder.spec().kv_shape(decoder.compute_dtype());
  const std::string& gpu = engine.device_names().front();  // "cuda:0 (NVIDIA H200)"
  const std::string device = engine.on_gpus() ? fmt::format("{} {}", gpu.substr(gpu.find('(') + 1),
                                                            options.deterministic ? "deterministic" : "")
                                              : fmt::format("cpu {}", fmt::join(build.cpu_features, " "));
  // Quantised rows depend on how prompts were cut, and are never taken for exact ones.
  const std::string wire = options.wire == Name(WireFormat::kExact) ? "" : fmt::format("; rows {}", options.wire);
  return fmt::format("{}; {}; {}; {}; {} x {} x {}{}", build.version, device, Name(decoder.compute_dtype()),
                     Name(decoder.weight_format()), shape.layers, shape.kv_heads, shape.head_dim, wire);
}

std::array<PageKey, 2> RootsOf(EngineState& engine, const EngineOptions& options) {
  const std::string content = ContentOf(engine.model()).Hex();
  const std::string by = ComputedBy(engine, options);
  return {KeyOf({"short", content, by}), KeyOf({"long", content, by})};
}

std::string About(const EngineState& engine) {
  const Decoder& decoder = engine.decoder();
  const std::filesystem::path path = std::filesystem::absolute(engine.model()).lexically_normal();
  const std::filesystem::path name = path.has_filename() ? path.filename() : path.parent_path().filename();
  return fmt::format("{}, {}, weights {}", name.string(), Name(decoder.compute_dtype()),
                     Name(decoder.weight_format()));
}

size_t RowBytes(const EngineState& engine) {
  const Decoder& decoder = engine.decoder();
  return decoder.spec().kv_shape(decoder.compute_dtype()).BytesPerToken() * static_cast<size_t>(kPageRows);
}

}  // namespace

PageArchive::PageArchive(EngineState& engine, const EngineOptions& options, std::span<const KvCache> caches,
                         Listener listener)
    : engine_(engine),
      caches_(caches),
      listener_(std::move(listener)),
      roots_(RootsOf(engine, options)),
      store_(options.cache_dir, options.cache_size, {roots_[0], About(engine)}, RowBytes(engine)) {
  loads_.thread = std::thread([this] { Run(loads_, &PageArchive::LoadNow); });
  saves_.thread = std::thread([this] { Run(saves_, &PageArchive::SaveNow); });
}

PageArchive::~PageArchive() {
  {
    const std::lock_guard lock(mutex_);
    until_ = Clock::now() + kPatience;
    stopping_ = true;
  }
  for (Queue* queue : {&loads_, &saves_}) {
    queue->changed.notify_all();
    queue->thread.join();
  }
}

bool PageArchive::Serves(int rank) const {
  return rank >= engine_.first_rank() && rank < engine_.first_rank() + engine_.local_ranks();
}

std::vector<PageKey> PageArchive::KeysOf(std::span<const int32_t> tokens, bool long_angles) const {
  return runahead::KeysOf(roots_[long_angles ? 1 : 0], tokens);
}

int64_t PageArchive::Kept(std::span<const int32_t> tokens, bool long_angles) {
  return store_.Count(KeysOf(tokens, long_angles)) * kPageRows;
}

void PageArchive::Load(PageMove move) { Add(loads_, std::move(move)); }
void PageArchive::Save(PageMove move) { Add(saves_, std::move(move)); }

std::string PageArchive::Flush() {
  std::unique_lock lock(mutex_);
  const bool done = saves_.changed.wait_for(lock, kPatience, [this] { return saves_.moves.empty() && !saves_.busy; });
  if (!done) failure_ = fmt::format("{}: not written within {} s", store_.folder().string(), kPatience.count());
  return std::exchange(failure_, {});
}

void PageArchive::Add(Queue& queue, PageMove move) {
  {
    const std::lock_guard lock(mutex_);
    queue.moves.push_back(std::move(move));
  }
  queue.changed.notify_all();
}

void PageArchive::Run(Queue& queue, void (PageArchive::*move)(const PageMove&)) {
  while (true) {
    PageMove next;
    {
      std::unique_lock lock(mutex_);
      queue.changed.wait(lock, [&] { return stopping_ || !queue.moves.empty(); });
      if (queue.moves.empty()) return;
      next = std::move(queue.moves.front());
      queue.moves.pop_front();
      queue.busy = true;
    }
    (this->*move)(next);
    const std::lock_guard lock(mutex_);
    queue.busy = false;
    queue.changed.notify_all();
  }
}

void PageArchive::LoadNow(const PageMove& move) {
  int64_t pages = move.first;
  try {
    pages = LoadPages(move, KeysOf(move.tokens, move.long_angles));
  } catch (
      const std::exception&) {  // no memory, or a device that failed, which its next step tells: they are computed
  }
  listener_.loaded(move.id, pages * kPageRows);
}

int64_t PageArchive::LoadPages(const PageMove& move, std::span<const PageKey> keys) {
  constexpr double kNew = 0.3;  // weight of the newest
  std::vector<std::byte> rows(store_.row_bytes());
  double load_s = 0;  // of a page, as those of this move took; 0: none was loaded yet
  double left_s = std::accumulate(move.compute_s.begin(), move.compute_s.end(), 0.0);
  const bool known = left_s > 0;
  int64_t page = move.first;
  for (; page < std::ssize(keys) && !stopping_; ++page) {
    const auto at = static_cast<size_t>(page);
    if (known && load_s * static_cast<double>(std::ssize(keys) - page) > left_s) break;
    const auto begin = Clock::now();
    const auto tokens =
        std::span(move.tokens).subspan(at * static_cast<size_t>(kPageRows), static_cast<size_t>(kPageRows));
    if (!store_.Read(keys[at], tokens, rows)) break;
    Copy(move.rank, move.pages[at], rows, Direction::kToCache);
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    load_s = load_s == 0 ? seconds : (1 - kNew) * load_s + kNew * seconds;
    if (known) left_s -= move.compute_s[static_cast<size_t>(page - move.first)];
  }
  store_.Touch(keys.first(static_cast<size_t>(page)));
  return page;
}

void PageArchive::SaveNow(const PageMove& move) {
  Status status;
  try {
    status = SavePages(move, KeysOf(move.tokens, move.long_angles));
  } catch (const std::exception& error) {
    status = Status::Failed(error.what());
  }
  if (!status.ok()) {
    const std::lock_guard lock(mutex_);
    failure_ = status.message();
  }
  listener_.saved(move.id);
}

bool PageArchive::MayGoOn() const { return !stopping_ || Clock::now() < until_.load(); }

Status PageArchive::SavePages(const PageMove& move, std::span<const PageKey> keys) {
  keys = keys.first(static_cast<size_t>(std::min<int64_t>(std::ssize(keys), store_.most_pages())));
  std::vector<std::byte> rows(store_.row_bytes());
  for (size_t page = 0; page < keys.size() && MayGoOn(); ++page) {
    if (store_.Has(keys[page])) continue;
    Copy(move.rank, move.pages[page], rows, Direction::kFromCache);
    const auto tokens =
        std::span(move.tokens).subspan(page * static_cast<size_t>(kPageRows), static_cast<size_t>(kPageRows));
    store_.MakeRoom();
    if (Status status = store_.Write(keys[page], tokens, rows); !status.ok()) return status;
  }
  store_.Touch(keys);
  return Status::Ok();
}

void PageArchive::Copy(int rank, int32_t page, std::span<std::byte> rows, Direction direction) {
  const KvCache& cache = caches_[static_cast<size_t>(rank - engine_.first_rank())];
  Rank& owner = engine_.rank(rank);
  const auto copy = [&](const auto& to_cache, const auto& from_cache) {
    std::byte* next = rows.data();
    for (int layer = 0; layer < cache.shape().layers; ++layer) {
      const KvSpan span = cache.Span(layer, page * kPageRows, (page + 1) * kPageRows);
      for (const TensorView& slab : {span.k, span.v}) {
        direction == Direction::kToCache ? to_cache(slab.data(), next, slab.bytes())
                                         : from_cache(next, slab.data(), slab.bytes());
        next += slab.bytes();
      }
    }
  };
  if (owner.device().is_host()) {
    const auto move = [](void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); };
    return copy(move, move);
  }
  // A GPU is its rank's thread's.
  owner
      .Post([&] {
        copy([&](void* to, const void* from,
                 size_t bytes) { owner.device().CopyFromHost(to, from, bytes, owner.stream()); },
             [&](void* to, const void* from, size_t bytes) {
               owner.device().CopyToHost(to, from, bytes, owner.stream());
             });
        owner.stream().Synchronize();
      })
      .get();
}

}  // namespace runahead
