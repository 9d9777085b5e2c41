// Runs what was asked for on an engine.
#pragma once

#include <memory>

#include "protocol/asked.h"
#include "protocol/http_call.h"
#include "protocol/service.h"
#include "runahead/engine.h"
#include "runahead/tokenizer.h"

namespace runahead::protocol {

/// Submits a request for each prompt; the answer comes by the engine's thread. Throws what
/// Engine::Submit throws: then nothing runs, and nothing was said.
std::unique_ptr<HttpCall> RunCompletion(const Engine& engine, const std::shared_ptr<const Tokenizer>& tokenizer,
                                        std::shared_ptr<Service> service, const Asked& asked,
                                        std::shared_ptr<HttpAnswer> answer);

}  // namespace runahead::protocol
