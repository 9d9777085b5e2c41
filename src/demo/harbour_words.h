// The words and sentences the harbour log is made of.
#pragma once

#include <span>

namespace runahead::demo {

// The facts of a vessel, in the order of kFactMarks.
enum class Fact { kOrigin, kCargo, kMaster, kBerth, kTons, kDestination };
inline constexpr int kFactCount = 6;

// Sentences hold marks in braces: {v} the vessel's name, {k} her kind, and one per fact: {o} port
// of origin, {c} cargo, {m} master, {b} berth, {n} tons, {d} destination. {v} stands before every
// other mark, so that a reader who goes from left to right knows whose fact it is.
inline constexpr char kFactMarks[kFactCount + 1] = "ocmbnd";

using Words = std::span<const char* const>;

Words VesselAdjectives();
Words VesselNouns();
Words VesselKinds();
Words Ports();
Words Cargoes();
Words FirstNames();
Words Surnames();
Words Months();
Words Harbours();
Words Winds();
Words Skies();

Words ArrivalSentences();    // sentences of all six facts
Words NoteSentences();       // sentences of two to four facts
Words DepartureSentences();  // sentences of two to four facts
Words QuestionsAbout(Fact fact);

}  // namespace runahead::demo
