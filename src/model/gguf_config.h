// What the metadata of a GGUF file say of its model.
#pragma once

#include "base/gguf_file.h"
#include "base/json.h"
#include "model/architectures.h"
#include "model/safetensors.h"

namespace runahead::gguf {

/// The factors that divide the rope's frequencies, where a file has them (Llama 3.1).
inline constexpr const char* kRopeFactors = "rope_freqs.weight";

/// The metadata as the config.json of the same model would say it. Throws ConfigError naming file, key and value for
/// an architecture that is not in the table, for an option that is not known to change nothing, and for sizes that
/// the model cannot have.
Json ConfigJson(const GgufFile& file);

/// Makes what was parsed from ConfigJson one that the file holds: tensors by its names, queries and keys in its
/// order, and the factors of its rope. Throws ConfigError and IoError naming file, tensor and value.
void Adapt(const GgufFile& file, const WeightFiles& weights, ParsedModel& model);

}  // namespace runahead::gguf
