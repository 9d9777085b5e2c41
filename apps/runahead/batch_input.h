// The requests of `runahead batch`: a file with one JSON object a line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "protocol/request_fields.h"
#include "runahead/request.h"

namespace runahead::cli {

struct BatchRequest {
  int64_t line = 0;  // line's number, from 1
  Json id;           // a string or a number, the line's number where the line has none
  Request request;   // of the first choice
  int choices = 1;   // answers, with the seeds seed, seed + 1, ...
};

/// A file of requests, and what is wrong with it.
struct BatchInput {
  std::string name;  // the file's path, or "stdin"
  std::vector<BatchRequest> requests;
  std::vector<std::string> wrong;           // what is wrong with the first lines, "FILE:3: top_k: expected ..."
  int64_t wrong_lines = 0;                  // lines with something wrong, also those that `wrong` leaves out
  std::vector<std::string> unknown_fields;  // names of fields that nobody reads, each once, the first ones
  int64_t unknown_names = 0;                // names, also those that `unknown_fields` leaves out
};

/// Reads and checks a whole file; "-" is stdin. Lines may end with CR LF, and those of spaces alone are passed over.
/// Throws IoError for a file that cannot be read, and ConfigError for one without any request.
BatchInput ReadBatch(const std::string& path, const protocol::ModelLimits& limits);

}  // namespace runahead::cli
