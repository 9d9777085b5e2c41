// Writes a harbour's log book and questions about it: the demo's long prompt, and the text its model is trained on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace runahead::demo {

// A question about one fact of one vessel. The vessel's name stands nowhere in the log outside [fact_begin,
// fact_end).
struct Question {
  std::string text;       // "At which berth did the Amber Heron lie?"
  std::string answer;     // "berth 12": as the log spells it, no full stop inside
  size_t fact_begin = 0;  // byte offset into HarbourLog::text: start of the vessel's first entry
  size_t fact_end = 0;    // byte offset into HarbourLog::text: end of its last entry
};

// Every vessel has one cargo, port of origin, destination, master, berth and tonnage, and keeps them for the whole
// log. Two vessels share the noun of their name only once every noun is taken, which takes more than 8,000 tokens.
struct HarbourLog {
  std::string text;                 // ASCII, ends with one newline
  std::vector<Question> questions;  // shuffled; at most one per vessel, about a fact that is stated at least twice
};

// Writes a log of at most `target_bytes` bytes and at most one entry with a day's heading (350 bytes) less; the
// result depends on the two arguments alone, on every platform. The first entry is written in any case, so a target
// under about 300 bytes may be passed. 31,200 bytes are about 7,900 tokens of the demo model.
HarbourLog WriteHarbourLog(uint64_t seed, size_t target_bytes);

// The questions whose vessel is named in the first quarter of the prompt and never again: a reader that lost those
// rows cannot know the answer. Ask this of logs of 8,000 bytes or more: each of 20,000 logs of that size has such a
// question, but only half of those of 3,500 bytes.
std::vector<Question> FirstQuarterQuestions(const HarbourLog& log);

// "Question: ...\nAnswer:". The model goes on with a space, the answer and a full stop.
std::string AskFor(const Question& question);

// The log, an empty line, and AskFor(question).
std::string PromptFor(const HarbourLog& log, const Question& question);

// True if `reply`, what a model wrote after PromptFor, gives the answer: the text up to its first full stop or
// newline, without the spaces around it, is compared byte for byte.
bool IsRightAnswer(const Question& question, const std::string& reply);

}  // namespace runahead::demo
