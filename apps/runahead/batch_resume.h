// Goes on with the answers that an earlier run of `runahead batch` left.
#pragma once

#include <vector>

#include "base/appended_file.h"
#include "batch_input.h"

namespace runahead::cli {

/// Whether each answer is there: [requests][choices].
using AnswersThere = std::vector<std::vector<bool>>;

AnswersThere NoAnswers(const BatchInput& input);

/// The answers to `input` that `file` holds, failed ones too. Cuts off a last line without an end, which a killed run
/// left. Throws ConfigError naming the line for a file that holds anything else: it is then left as it is.
AnswersThere AnswersIn(AppendedFile& file, const BatchInput& input);

}  // namespace runahead::cli
