// The harbour's calendar: which vessel is written about when, and in which words.
#include "demo/harbour_log.h"

#include <algorithm>
#include <array>
#include <optional>
#include <queue>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "demo/harbour_words.h"

namespace runahead::demo {
namespace {

// Splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). The
// standard library's distributions differ between platforms, so bounded draws are ours too.
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    state_ += 0x9E3779B97F4A7C15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }

  // A number in [0, bound); bound is at most 2^32.
  size_t Below(size_t bound) { return static_cast<size_t>(((Next() >> 32) * bound) >> 32); }
  size_t Between(size_t low, size_t high) { return low + Below(high - low + 1); }
  std::string_view Pick(Words words) { return words[Below(words.size())]; }

 private:
  uint64_t state_;
};

struct Vessel {
  std::string name;
  std::string kind;
  std::array<std::string, kFactCount> facts;  // text that replaces each mark
  std::array<int, kFactCount> times_stated{};
  int notes_left = 0;
  bool departs = false;
  size_t longest_gap = 0;  // entries between two mentions, at most
  size_t begin = 0;        // bytes
  size_t end = 0;          // bytes
};

std::string FillIn(std::string_view sentence, const Vessel& vessel) {
  std::string text;
  for (size_t i = 0; i < sentence.size(); ++i) {
    if (sentence[i] != '{') {
      text += sentence[i];
      continue;
    }
    const char mark = sentence[i + 1];
    if (mark == 'v') text += vessel.name;
    if (mark == 'k') text += vessel.kind;
    const size_t fact = std::string_view(kFactMarks).find(mark);
    if (fact != std::string_view::npos) text += vessel.facts[fact];
    i += 2;
  }
  return text;
}

// The answer spells the fact with its unit, as the sentences do around the mark.
std::string AnswerAbout(Fact fact, const Vessel& vessel) {
  const std::string& value = vessel.facts[static_cast<size_t>(fact)];
  if (fact == Fact::kBerth) return "berth " + value;
  if (fact == Fact::kTons) return value + " tons";
  return value;
}

class Calendar {
 public:
  explicit Calendar(Dice& dice) : month_(dice.Below(12)), day_(dice.Between(1, 28)) {}

  // "4 March. Wind fresh from the west, low cloud.\n", and turns the page to the next day.
  std::string NextHeading(Dice& dice) {
    constexpr std::array<size_t, 12> kDays = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    std::string heading("\n");
    heading += std::to_string(day_);
    heading += ' ';
    heading += Months()[month_];
    heading += ". ";
    heading += dice.Pick(Winds());
    heading += ", ";
    heading += dice.Pick(Skies());
    heading += ".\n";
    if (++day_ > kDays[month_]) {
      day_ = 1;
      month_ = (month_ + 1) % 12;
    }
    return heading;
  }

 private:
  size_t month_;
  size_t day_;
};

class Writer {
 public:
  Writer(uint64_t seed, size_t target_bytes) : dice_(seed), calendar_(dice_), target_bytes_(target_bytes) {}

  HarbourLog Write() {
    const std::string_view harbour = dice_.Pick(Harbours());
    const std::string year = std::to_string(dice_.Between(1840, 1899));
    log_.text = "Log book of " + std::string(harbour) + " harbour, " + year + ".\n";
    size_t entries_left_today = 0;
    for (size_t now = 0;; ++now) {
      std::string heading;
      if (entries_left_today == 0) {
        heading = calendar_.NextHeading(dice_);
        entries_left_today = dice_.Between(5, 11);
      }
      --entries_left_today;
      if (!WriteEntry(now, heading)) break;
    }
    AskQuestions();
    return std::move(log_);
  }

 private:
  // Writes about the vessel that is due for longest, or lets a new one arrive; false once the log
  // is full.
  bool WriteEntry(size_t now, const std::string& heading) {
    size_t index = vessels_.size();
    Words sentences = ArrivalSentences();
    if (!due_.empty() && due_.top().first <= now) {
      index = due_.top().second;
      due_.pop();
      sentences = vessels_[index].notes_left > 0 ? NoteSentences() : DepartureSentences();
      --vessels_[index].notes_left;
    } else {
      vessels_.push_back(NewVessel());
    }
    Vessel& vessel = vessels_[index];
    const std::string_view sentence = dice_.Pick(sentences);
    const std::string entry = FillIn(sentence, vessel) + "\n";
    if (log_.text.size() + heading.size() + entry.size() > target_bytes_ && now > 0) return false;

    log_.text += heading;
    if (vessel.end == 0) vessel.begin = log_.text.size();
    log_.text += entry;
    vessel.end = log_.text.size();
    for (int fact = 0; fact < kFactCount; ++fact) {
      if (sentence.find(std::string{'{', kFactMarks[fact], '}'}) != std::string_view::npos)
        ++vessel.times_stated[fact];
    }
    if (vessel.notes_left > 0 || (vessel.notes_left == 0 && vessel.departs)) {
      due_.emplace(now + dice_.Between(1, vessel.longest_gap), index);
    }
    return true;
  }

  Vessel NewVessel() {
    Vessel vessel;
    vessel.name = NewName();
    vessel.kind = dice_.Pick(VesselKinds());
    const std::string_view origin = dice_.Pick(Ports());
    std::string_view destination = origin;
    while (destination == origin) destination = dice_.Pick(Ports());
    vessel.facts = {std::string(origin),
                    std::string(dice_.Pick(Cargoes())),
                    PickTwo(FirstNames(), Surnames()),
                    std::to_string(dice_.Between(1, 60)),
                    std::to_string(dice_.Between(100, 999)),
                    std::string(destination)};
    // Stays of all lengths, so that a fact comes back after a few lines as well as after many
    // pages. The first vessel's is short: some vessel must have come and gone while the log is
    // young.
    const bool first = vessels_.empty();
    vessel.notes_left = static_cast<int>(first ? 3 : dice_.Between(2, 4));
    vessel.departs = dice_.Below(4) > 0;
    vessel.longest_gap = first ? 2 : size_t{4} << (2 * dice_.Below(4));
    return vessel;
  }

  // Two vessels of a log share a noun only once every noun is taken, and never the whole name.
  std::string NewName() {
    if (nouns_.size() == VesselNouns().size()) nouns_.clear();
    std::string_view noun;
    do {
      noun = dice_.Pick(VesselNouns());
    } while (!nouns_.insert(noun).second);
    std::string name;
    do {
      name = std::string(dice_.Pick(VesselAdjectives())) + " " + std::string(noun);
    } while (!names_.insert(name).second);
    return name;
  }

  // One word of each list with a space between, drawn in this order.
  std::string PickTwo(Words first_list, Words second_list) {
    const std::string_view first = dice_.Pick(first_list);
    const std::string_view second = dice_.Pick(second_list);
    return std::string(first) + " " + std::string(second);
  }

  void AskQuestions() {
    for (const Vessel& vessel : vessels_) {
      std::vector<Fact> known;
      for (int fact = 0; fact < kFactCount; ++fact) {
        if (vessel.times_stated[fact] >= 2) known.push_back(static_cast<Fact>(fact));
      }
      if (known.empty()) continue;
      const Fact fact = known[dice_.Below(known.size())];
      log_.questions.push_back({.text = FillIn(dice_.Pick(QuestionsAbout(fact)), vessel),
                                .answer = AnswerAbout(fact, vessel),
                                .fact_begin = vessel.begin,
                                .fact_end = vessel.end});
    }
    for (size_t i = log_.questions.size(); i > 1; --i)
      std::swap(log_.questions[i - 1], log_.questions[dice_.Below(i)]);
  }

  using Due = std::pair<size_t, size_t>;  // (entry number, vessel)

  Dice dice_;
  Calendar calendar_;
  size_t target_bytes_;
  HarbourLog log_;
  std::vector<Vessel> vessels_;
  std::set<std::string_view> nouns_;
  std::set<std::string> names_;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
};

}  // namespace

HarbourLog WriteHarbourLog(uint64_t seed, size_t target_bytes) { return Writer(seed, target_bytes).Write(); }

std::vector<Question> FirstQuarterQuestions(const HarbourLog& log) {
  // Bytes stand for tokens, whose density varies a little along the log: stay two percent below the
  // quarter.
  const size_t limit = log.text.size() * 23 / 100;
  std::vector<Question> early;
  std::copy_if(log.questions.begin(), log.questions.end(), std::back_inserter(early),
               [limit](const Question& question) { return question.fact_end <= limit; });
  return early;
}

std::string AskFor(const Question& question) { return "Question: " + question.text + "\nAnswer:"; }

std::string PromptFor(const HarbourLog& log, const Question& question) { return log.text + "\n" + AskFor(question); }

bool IsRightAnswer(const Question& question, const std::string& reply) {
  const size_t stop = std::min(reply.find_first_of(".\n"), reply.size());
  const size_t begin = std::min(reply.find_first_not_of(' '), stop);
  size_t end = stop;
  while (end > begin && reply[end - 1] == ' ') --end;
  return reply.substr(begin, end - begin) == question.answer;
}

}  // namespace runahead::demo
