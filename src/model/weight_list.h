// The tensors of a model as a flat list: what must be in its files, and how large they are.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/architectures.h"
#include "model/safetensors.h"

namespace runahead {

/// A tensor by its full name in the files.
struct NamedShape {
  std::string name;
  Shape shape;
};

/// Every tensor of a model once, in the order of its layers.
std::vector<NamedShape> ListWeights(const WeightSources& sources, bool separate_head);

/// Whether the model of these files has a head of its own. A file that holds one although the configuration ties it
/// is believed, as HF transformers does.
bool HasSeparateHead(const DecoderSpec& spec, const WeightSources& sources, const WeightFiles& files);

}  // namespace runahead
