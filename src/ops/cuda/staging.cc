#include "ops/cuda/staging.h"

#include <cuda_runtime_api.h>
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "tensor/cuda_check.h"

namespace runahead::cuda {
namespace {

constexpr size_t kSlotBytes = size_t{32} << 20;
constexpr int kSlots = 3;
constexpr int kMostThreads = 8;  // threads that fill a slot: enough for the bus

/// memcpy by several threads, each of which also takes the page faults of a mapped source.
void CopyInParallel(std::byte* to, const std::byte* from, size_t bytes) {
  constexpr size_t kPiece = size_t{1} << 20;
  const auto pieces = static_cast<int64_t>((bytes + kPiece - 1) / kPiece);
  const int threads = std::clamp(static_cast<int>(std::min<int64_t>(pieces, omp_get_num_procs())), 1, kMostThreads);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const size_t begin = static_cast<size_t>(piece) * kPiece;
    std::memcpy(to + begin, from + begin, std::min(kPiece, bytes - begin));
  }
}

}  // namespace

PinnedBuffer::PinnedBuffer(int ordinal, size_t bytes) {
  const CurrentDevice current(ordinal);
  CheckCuda(cudaHostAlloc(&data_, bytes, cudaHostAllocDefault), ordinal, "cudaHostAlloc");
}

PinnedBuffer::~PinnedBuffer() { (void)cudaFreeHost(data_); }

Event::Event(int ordinal) : ordinal_(ordinal) {
  const CurrentDevice current(ordinal);
  CheckCuda(cudaEventCreateWithFlags(&handle_, cudaEventDisableTiming), ordinal, "cudaEventCreate");
}

Event::~Event() { (void)cudaEventDestroy(handle_); }

void Event::Record(cudaStream_t stream) { CheckCuda(cudaEventRecord(handle_, stream), ordinal_, "cudaEventRecord"); }

void Event::Synchronize() const { CheckCuda(cudaEventSynchronize(handle_), ordinal_, "cudaEventSynchronize"); }

/// A page-locked buffer, and on the GPU the place of elements that change their dtype.
struct Uploader::Slot {
  explicit Slot(int ordinal)
      : host(std::make_unique<PinnedBuffer>(ordinal, kSlotBytes)), free(std::make_unique<Event>(ordinal)) {}
  std::unique_ptr<PinnedBuffer> host;
  std::unique_ptr<Event> free;
  void* device = nullptr;
};

Uploader::Uploader(int ordinal, bool overlap) : ordinal_(ordinal) {
  const CurrentDevice current(ordinal);
  on_.overlap = overlap;
  CheckCuda(cudaStreamCreateWithFlags(&on_.stream, cudaStreamNonBlocking), ordinal, "cudaStreamCreate");
  for (int i = 0; i < kSlots; ++i) slots_.emplace_back(ordinal);
}

Uploader::~Uploader() {
  (void)cudaStreamSynchronize(on_.stream);
  for (const Slot& slot : slots_) (void)cudaFree(slot.device);
  (void)cudaStreamDestroy(on_.stream);
}

Uploader::Slot& Uploader::NextSlot() {
  Slot& slot = slots_[next_];
  next_ = (next_ + 1) % slots_.size();
  slot.free->Synchronize();
  return slot;
}

void Uploader::SendToOwnPlace(Slot& slot, size_t bytes) {
  if (slot.device == nullptr) CheckCuda(cudaMalloc(&slot.device, kSlotBytes), ordinal_, "cudaMalloc");
  CheckCuda(cudaMemcpyAsync(slot.device, slot.host->data(), bytes, cudaMemcpyHostToDevice, on_.stream), ordinal_,
            "cudaMemcpyAsync");
}

void Uploader::Copy(TensorView from, void* to, DType to_dtype) {
  CHECK(from.contiguous());
  const CurrentDevice current(ordinal_);
  const size_t from_size = SizeOf(from.dtype());
  const size_t elements = from.bytes() / from_size;
  const size_t per_slot = kSlotBytes / from_size;
  for (size_t first = 0; first < elements; first += per_slot) {
    const size_t count = std::min(per_slot, elements - first);
    Slot& slot = NextSlot();
    CopyInParallel(slot.host->data(), static_cast<const std::byte*>(from.data()) + first * from_size,
                   count * from_size);
    std::byte* const target = static_cast<std::byte*>(to) + first * SizeOf(to_dtype);
    if (from.dtype() == to_dtype) {
      CheckCuda(cudaMemcpyAsync(target, slot.host->data(), count * from_size, cudaMemcpyHostToDevice, on_.stream),
                ordinal_, "cudaMemcpyAsync");
    } else {
      SendToOwnPlace(slot, count * from_size);
      Convert(on_, slot.device, from.dtype(), target, to_dtype, static_cast<int64_t>(count));
    }
    slot.free->Record(on_.stream);
  }
}

void Uploader::CopyAsE4M3(TensorView from, std::span<const float> given, void* codes, float* scales) {
  CHECK(from.contiguous());
  if (!given.empty()) {
    CHECK_EQ(std::ssize(given), from.rows());
    std::vector<float> copy(given.begin(), given.end());
    Copy(TensorView(copy.data(), DType::kF32, {from.rows()}), scales, DType::kF32);
  }
  const CurrentDevice current(ordinal_);
  const int64_t features = from.row_elements();
  const size_t row_bytes = static_cast<size_t>(features) * SizeOf(from.dtype());
  const auto per_slot = static_cast<int64_t>(kSlotBytes / row_bytes);
  CHECK_GE(per_slot, int64_t{1});
  for (int64_t first = 0; first < from.rows(); first += per_slot) {
    const int64_t count = std::min(per_slot, from.rows() - first);
    const TensorView rows = from.Rows(first, first + count);
    Slot& slot = NextSlot();
    CopyInParallel(slot.host->data(), static_cast<const std::byte*>(rows.data()), rows.bytes());
    SendToOwnPlace(slot, rows.bytes());
    Quantise(on_, TensorView(slot.device, from.dtype(), {count, features}),
             static_cast<std::byte*>(codes) + first * features, scales + first, !given.empty());
    slot.free->Record(on_.stream);
  }
}

void Uploader::Finish() { CheckCuda(cudaStreamSynchronize(on_.stream), ordinal_, "copying weights"); }

CudaChosenToken::CudaChosenToken(int ordinal) : host_(ordinal, sizeof(int32_t)), chosen_(ordinal) {
  const CurrentDevice current(ordinal);
  void* memory = nullptr;
  CheckCuda(cudaMalloc(&memory, sizeof(LikeliestScratch)), ordinal, "cudaMalloc");
  scratch_ = static_cast<LikeliestScratch*>(memory);
  CheckCuda(cudaMemset(memory, 0, sizeof(LikeliestScratch)), ordinal, "cudaMemset");
  CheckCuda(cudaDeviceSynchronize(), ordinal, "cudaMemset");
}

CudaChosenToken::~CudaChosenToken() { (void)cudaFree(scratch_); }

void CudaChosenToken::Choose(const LaunchOn& on, TensorView logits) {
  Likeliest(on, logits, scratch_, reinterpret_cast<int32_t*>(host_.data()));
  chosen_.Record(on.stream);
}

int32_t CudaChosenToken::Wait() {
  chosen_.Synchronize();
  int32_t token = 0;
  std::memcpy(&token, host_.data(), sizeof(token));
  return token;
}

LikeliestTokens::LikeliestTokens(int ordinal, int64_t most)
    : most_(most), host_(ordinal, static_cast<size_t>(most) * sizeof(int32_t)) {
  const CurrentDevice current(ordinal);
  const size_t bytes = static_cast<size_t>(most) * sizeof(LikeliestScratch);
  void* memory = nullptr;
  CheckCuda(cudaMalloc(&memory, bytes), ordinal, "cudaMalloc");
  scratch_ = static_cast<LikeliestScratch*>(memory);
  CheckCuda(cudaMemset(memory, 0, bytes), ordinal, "cudaMemset");
  CheckCuda(cudaDeviceSynchronize(), ordinal, "cudaMemset");
}

LikeliestTokens::~LikeliestTokens() { (void)cudaFree(scratch_); }

std::span<const int32_t> LikeliestTokens::Choose(const LaunchOn& on, TensorView logits) {
  CHECK_LE(logits.rows(), most_);
  auto* const tokens = reinterpret_cast<int32_t*>(host_.data());
  Likeliest(on, logits, scratch_, tokens);
  return {tokens, static_cast<size_t>(logits.rows())};
}

TokenBuffer::TokenBuffer(int ordinal) : ordinal_(ordinal), host_(ordinal, kMost * sizeof(int32_t)), copied_(ordinal) {
  const CurrentDevice current(ordinal);
  CheckCuda(cudaMalloc(&device_, kMost * sizeof(int32_t)), ordinal, "cudaMalloc");
}

TokenBuffer::~TokenBuffer() { (void)cudaFree(device_); }

const int32_t* TokenBuffer::Send(std::span<const int32_t> tokens, cudaStream_t stream) {
  CHECK_LE(tokens.size(), kMost);
  copied_.Synchronize();  // copy of the call before, long done
  std::memcpy(host_.data(), tokens.data(), tokens.size_bytes());
  CheckCuda(cudaMemcpyAsync(device_, host_.data(), tokens.size_bytes(), cudaMemcpyHostToDevice, stream), ordinal_,
            "cudaMemcpyAsync");
  copied_.Record(stream);
  return static_cast<const int32_t*>(device_);
}

}  // namespace runahead::cuda
