// A layer's attention, of plain heads and of latent vectors: where queries, keys and values lie among the columns of
// Workspace::Qkv, how they are made of these, and what queries attend to.
#pragma once

#include <cstdint>

#include "model/pass.h"

namespace runahead {

/// Where the queries of the rows of `qkv` lie once they are made: [n, q_heads * query_dim]. qkv: [n, query_columns +
/// kv_columns].
TensorView QueriesOf(const Pass& pass, TensorView qkv);
/// Makes the queries of what the first part of LayerWeights::qkv left in `qkv`. Returns QueriesOf.
TensorView MakeQueries(const Pass& pass, const LayerWeights& weights, TensorView qkv);
/// What of queries turns: [n, q_heads, head_dim].
TensorView TurningOf(const DecoderSpec& spec, TensorView queries);

/// What goes into the cache, of `qkv`: [n, kv_heads, head_dim], and [n, kv_heads, head_dim of values].
TensorView KeysOf(const DecoderSpec& spec, TensorView qkv);
TensorView ValuesOf(const DecoderSpec& spec, TensorView qkv);
/// The norm over the keys of a row, or over its latent vector, where the model has one.
void NormalizeKeys(const Pass& pass, const LayerWeights& weights, TensorView qkv);

/// What queries attend to: those of all rows, or in the last layer of the kept ones. queries: [m, q_heads *
/// query_dim]. Returns [m, attended_columns].
TensorView Attend(const Pass& pass, const LayerWeights& weights, int layer, TensorView queries);

}  // namespace runahead
