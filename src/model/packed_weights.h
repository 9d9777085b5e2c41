// Matrices whose numbers are stored as a few bits each in words of 32, as AWQ, GPTQ and compressed-tensors pack them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "model/safetensors.h"

namespace runahead {

enum class PackedMethod : uint8_t { kAwq, kGptq, kCompressedTensors };

/// How matrices are packed: what config.json says of all, and what the files have of one.
struct PackedFormat {
  PackedMethod method = PackedMethod::kAwq;
  int bits = 4;                    // 4 or 8
  int64_t group = 0;               // inputs that share a scale; 0: all
  bool one_scale = false;          // of the whole matrix
  bool zero_points = true;         // else the middle of the codes is zero
  bool zeros_less_one = false;     // zero points are stored less one (GPTQ, version 1)
  bool needs_group_index = false;  // inputs are in no order of groups
  bool group_index = false;        // the files have each input's group

  friend bool operator==(const PackedFormat&, const PackedFormat&) = default;
};

/// "awq, 4 bits, groups of 128".
std::string ShowPacked(const PackedFormat& format);

/// The tensors of the matrix `name` of `rows` outputs and `columns` inputs: first the one with its
/// numbers, then its scales, then zero points where there are some.
std::vector<NamedShape> PackedTensors(const PackedFormat& format, const std::string& name, int64_t rows,
                                      int64_t columns);

/// What the files have beside the numbers of the matrix `name`: `format` is theirs, or asks for what is missing.
PackedFormat PackedAsStored(const WeightFiles& files, PackedFormat format, const std::string& name);

/// The matrix `name`, [rows, columns], into `to`: scale * (code - zero point), each exact or rounded once to f32.
/// scales: in f32, in the order of their tensor. Throws what WeightFiles::Find throws, and ConfigError naming tensor,
/// element and value for a group that is not there, or a shape of another matrix.
void Unpack(const WeightFiles& files, const PackedFormat& format, const std::string& name, int64_t rows,
            int64_t columns, const float* scales, float* to);

}  // namespace runahead
