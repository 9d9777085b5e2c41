// The words of HTTP around a body: heads, chunks, errors in the form of OpenAI's API.
#pragma once

#include <string>
#include <string_view>

#include "protocol/http_call.h"

namespace runahead::server {

/// "Not Found" for 404.
std::string_view ReasonOf(int status);

/// "HTTP/1.1 200 OK" and the fields, with the empty line at the end. Line ends within a value become spaces.
std::string HeadText(const protocol::HttpHead& head);

/// "Mon, 30 Nov 2026 06:16:15 GMT", now.
std::string HttpDate();

/// `bytes` as one chunk of a chunked body; of none: nothing, since that would be its end.
void AppendChunk(std::string& out, std::string_view bytes);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

/// What is not done, and why.
struct Refusal {
  int status = 400;
  std::string code;  // for programs: "invalid_api_key"
  std::string message;
  std::vector<protocol::HttpField> fields;  // besides those of every error
};

/// {"error": {"message": ..., "type": ..., "param": null, "code": ...}}
std::string ErrorJson(const Refusal& refusal);

/// The head of an answer with that body.
protocol::HttpHead ErrorHead(const Refusal& refusal);

/// The path of a request's target, without its query.
std::string_view PathOf(std::string_view target);

/// Whether two texts are alike but for the case of ASCII letters.
bool SameWord(std::string_view a, std::string_view b);

/// Whether `list`, words between commas, has `word`, in either case.
bool HasWord(std::string_view list, std::string_view word);

}  // namespace runahead::server
