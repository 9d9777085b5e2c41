// The tensors of a model as a flat list: what must be in its files, and how large they are.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/architectures.h"
#include "model/safetensors.h"

namespace runahead {

/// Every tensor of a model once, in the order of its layers. A tied head is its embedding.
std::vector<NamedShape> ListWeights(const WeightSources& sources);

/// Names the tensors in `sources` as the files do: with other words in front of them where the model is a part of a
/// larger one, and embedding and head by one name where the configuration ties them and the files hold one of the
/// two, under either name. A file that holds both although the configuration ties them is believed, as HF
/// transformers does. Matrices of which the files hold no plain numbers become packed ones.
void NameByFiles(const DecoderSpec& spec, const WeightFiles& files, WeightSources& sources);

/// Gives every source in `sources` the name that `rename` makes of its own.
void RenameTensors(WeightSources& sources, const std::function<std::string(const std::string&)>& rename);

/// The tensors of a norm, without ".weight", and the shape of each in the files.
std::vector<std::string> NormNames(const NormSource& norm);
Shape NormShape(const NormSource& norm);

}  // namespace runahead
