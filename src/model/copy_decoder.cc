// A model's weights from the memory of one GPU to that of another.
#include "model/decoder.h"

namespace runahead {
namespace {

/// Copies to the device of `ops`, in order on one stream.
class Copier {
 public:
  explicit Copier(Ops& ops) : ops_(ops), stream_(ops.device().NewStream()) {}

  Tensor Copy(const Tensor& from) {
    Tensor copy;
    if (from.view.data() == nullptr) return copy;
    CHECK(from.view.contiguous());
    copy.memory = ops_.device().Allocate(from.view.bytes());
    copy.view = copy.memory.View(from.view.dtype(), from.view.shape());
    ops_.device().Copy(copy.view.data(), from.view.data(), from.view.bytes(), *stream_);
    return copy;
  }
  Norm Copy(const Norm& from) { return {from.kind, from.epsilon, Copy(from.weight), Copy(from.bias)}; }
  std::optional<Norm> Copy(const std::optional<Norm>& from) {
    return from ? std::optional(Copy(*from)) : std::nullopt;
  }
  std::unique_ptr<Linear> Copy(const std::unique_ptr<Linear>& from) { return ops_.Copy(*from, *stream_); }
  MixtureWeights Copy(const MixtureWeights& from) {
    MixtureWeights copy{Copy(from.router), {}, Copy(from.choice_bias)};
    for (const Expert& expert : from.experts) copy.experts.push_back({Copy(expert.gate_up), Copy(expert.down)});
    return copy;
  }

  LatentWeights Copy(const LatentWeights& from) {
    LatentWeights copy;
    if (from.queries != nullptr) copy.queries = Copy(from.queries);
    copy.keys = Copy(from.keys);
    copy.values = Copy(from.values);
    return copy;
  }

  void Finish() { stream_->Synchronize(); }

 private:
  Ops& ops_;
  std::unique_ptr<Stream> stream_;
};

}  // namespace

std::shared_ptr<const Decoder> Decoder::CopyTo(Ops& ops) const {
  Copier copier(ops);
  DecoderWeights copy;
  copy.files = weights_.files;
  copy.format = weights_.format;
  copy.embedding = copier.Copy(weights_.embedding);
  copy.positions = copier.Copy(weights_.positions);
  copy.embedding_norm = copier.Copy(weights_.embedding_norm);
  for (const LayerWeights& layer : weights_.layers) {
    LayerWeights& other = copy.layers.emplace_back();
    other.attention_norm = copier.Copy(layer.attention_norm);
    other.qkv = copier.Copy(layer.qkv);
    other.q_norm = copier.Copy(layer.q_norm);
    other.k_norm = copier.Copy(layer.k_norm);
    other.sinks = copier.Copy(layer.sinks);
    if (layer.latent) other.latent = copier.Copy(*layer.latent);
    other.out = copier.Copy(layer.out);
    other.post_attention_norm = copier.Copy(layer.post_attention_norm);
    other.mlp_norm = copier.Copy(layer.mlp_norm);
    if (layer.mixture) {
      other.mixture = copier.Copy(*layer.mixture);
    } else {
      other.gate_up = copier.Copy(layer.gate_up);
      other.down = copier.Copy(layer.down);
    }
    other.post_mlp_norm = copier.Copy(layer.post_mlp_norm);
  }
  copy.final_norm = copier.Copy(weights_.final_norm);
  copy.head = copier.Copy(weights_.head);
  copier.Finish();
  return std::make_shared<const Decoder>(spec_, compute_, std::move(copy));
}

}  // namespace runahead
