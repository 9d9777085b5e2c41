// Word lists and sentence patterns of the harbour log; plain tables.
#include "demo/harbour_words.h"

namespace runahead::demo {
namespace {

constexpr const char* kAdjectives[] = {
    "Amber",  "Ancient",  "Arctic",   "Autumn",   "Bold",    "Brave",   "Bright", "Bronze",  "Calm",
    "Clever", "Copper",   "Coral",    "Crimson",  "Dancing", "Distant", "Eager",  "Early",   "Emerald",
    "Fair",   "Faithful", "Fearless", "Flying",   "Gallant", "Gentle",  "Gilded", "Golden",  "Grand",
    "Green",  "Grey",     "Happy",    "Hardy",    "Hidden",  "Honest",  "Humble", "Iron",    "Ivory",
    "Jolly",  "Kind",     "Laughing", "Little",   "Lively",  "Lonely",  "Lucky",  "Marble",  "Merry",
    "Mighty", "Misty",    "Noble",    "Northern", "Opal",    "Patient", "Proud",  "Quick",   "Quiet",
    "Rapid",  "Restless", "Roaming",  "Royal",    "Ruby",    "Russet",  "Sable",  "Scarlet", "Silent",
    "Silver", "Sober",    "Southern", "Stout",    "Sunny",   "Swift",   "Trusty", "Velvet",  "Wandering",
    "White",  "Wild",     "Willing",  "Winter",   "Wise",    "Young"};

constexpr const char* kNouns[] = {
    "Anchor",  "Arrow",   "Badger",  "Beacon",   "Bell",   "Bishop",  "Bramble", "Breeze", "Candle",   "Castle",
    "Cedar",   "Comet",   "Compass", "Countess", "Crane",  "Crown",   "Curlew",  "Daisy",  "Dolphin",  "Dove",
    "Drake",   "Duchess", "Eagle",   "Ember",    "Falcon", "Feather", "Fiddler", "Finch",  "Fox",      "Gannet",
    "Garland", "Gull",    "Hare",    "Harper",   "Hawk",   "Heron",   "Hunter",  "Island", "Jackdaw",  "Juniper",
    "Kestrel", "Lantern", "Lark",    "Laurel",   "Lily",   "Linnet",  "Lion",    "Magpie", "Maiden",   "Meadow",
    "Mermaid", "Monarch", "Morning", "Orchid",   "Osprey", "Otter",   "Pelican", "Petrel", "Pilgrim",  "Piper",
    "Plover",  "Poppy",   "Puffin",  "Raven",    "Robin",  "Rose",    "Sailor",  "Seal",   "Shepherd", "Sparrow",
    "Star",    "Stork",   "Swallow", "Swan",     "Tern",   "Thistle", "Trader",  "Tulip",  "Venture",  "Walrus",
    "Weaver",  "Whale",   "Willow",  "Wren"};

constexpr const char* kKinds[] = {"brig",  "schooner", "ketch",  "barque",  "steamer", "cutter",
                                  "sloop", "lugger",   "packet", "collier", "clipper", "yawl"};

constexpr const char* kPorts[] = {
    "Aberdeen", "Bergen",  "Bilbao", "Bordeaux",  "Bremen",  "Bristol", "Cadiz",    "Calais",    "Cardiff",
    "Cork",     "Danzig",  "Dover",  "Dublin",    "Dundee",  "Genoa",   "Ghent",    "Hamburg",   "Hull",
    "Kiel",     "Leith",   "Lisbon", "London",    "Malaga",  "Malmo",   "Malta",    "Marseille", "Memel",
    "Naples",   "Narvik",  "Odessa", "Oporto",    "Ostend",  "Palermo", "Plymouth", "Riga",      "Rotterdam",
    "Rouen",    "Seville", "Smyrna", "Stavanger", "Tallinn", "Trieste", "Tunis",    "Venice"};

constexpr const char* kCargoes[] = {
    "almonds",    "barley", "bricks", "butter",   "candles", "cheese", "cider",  "clay",    "coal",       "coffee",
    "copper ore", "cotton", "figs",   "flax",     "flour",   "furs",   "glass",  "granite", "hemp",       "herring",
    "hides",      "honey",  "indigo", "lamp oil", "lemons",  "linen",  "marble", "nails",   "oak planks", "olive oil",
    "oranges",    "paper",  "pepper", "pine tar", "raisins", "rice",   "rope",   "rum",     "rye",        "salt",
    "salt cod",   "silk",   "slate",  "soap",     "sugar",   "tallow", "tea",    "tiles",   "timber",     "tin",
    "tobacco",    "wax",    "wheat",  "wine",     "wool"};

constexpr const char* kFirstNames[] = {"Adam",   "Agnes",  "Albert", "Anna",  "Arthur", "Clara", "Daniel", "David",
                                       "Edith",  "Edwin",  "Esther", "Felix", "George", "Greta", "Hannah", "Henry",
                                       "Hugo",   "Ingrid", "Jacob",  "James", "Jonas",  "Karl",  "Laura",  "Lucas",
                                       "Martha", "Martin", "Nora",   "Oscar", "Peter",  "Ruth",  "Samuel", "Simon",
                                       "Thomas", "Tobias", "Victor", "Walter"};

constexpr const char* kSurnames[] = {
    "Abbott", "Archer", "Barlow", "Bennett", "Blake",    "Brandt", "Carver",  "Clarke", "Cooper", "Corbett",
    "Dalton", "Drew",   "Ellis",  "Fenner",  "Fletcher", "Forbes", "Garrick", "Grant",  "Hale",   "Harker",
    "Holt",   "Hudson", "Jansen", "Keller",  "Kemp",     "Lang",   "Larsen",  "Lowell", "Marsh",  "Mercer",
    "Morgan", "Nash",   "Norris", "Olsen",   "Parker",   "Perry",  "Quinn",   "Ramsay", "Reed",   "Salter",
    "Shaw",   "Stone",  "Tanner", "Thorne",  "Vance",    "Wallis", "Webb",    "Wilde"};

constexpr const char* kMonths[] = {"January", "February", "March",     "April",   "May",      "June",
                                   "July",    "August",   "September", "October", "November", "December"};

constexpr const char* kHarbours[] = {"Greyhaven", "Saltmere", "Fairquay", "Northmole", "Gullwick", "Tidewell"};

constexpr const char* kWinds[] = {"Wind light from the south",  "Wind fresh from the west",
                                  "Strong wind from the north", "Hardly any wind",
                                  "Wind steady from the east",  "A gale from the north",
                                  "Wind turning to the south",  "Light wind from the east"};

constexpr const char* kSkies[] = {"clear sky",        "rain until noon", "fog in the morning",
                                  "low cloud",        "sun all day",     "a little snow",
                                  "showers at night", "the sea calm",    "a high tide"};

constexpr const char* kArrivals[] = {
    "The {v} came in from {o} with {c}, a {k} of {n} tons under {m}; she was given berth {b} and "
    "is bound for {d}.",
    "In came the {v}, {k}, {n} tons, {m} master, last from {o}. She carries {c}, lies at berth {b} "
    "and is bound for {d}.",
    "At first light the {v} came round the mole, from {o} and bound for {d}. Her master is {m}, "
    "her cargo {c}; {n} tons, berth {b}.",
    "A new sail, the {v}, with {m} as master: {c} from {o}, to go on to {d}. The {k} of {n} tons "
    "was sent to berth {b}.",
    "The pilot brought in the {v}, a {k} of {n} tons. She left {o} with {c} and is bound for {d}; "
    "{m} made her fast at berth {b}.",
    "Made fast at noon, the {v}: berth {b}, {n} tons, cargo of {c}, last port {o}, next port {d}, "
    "master {m}.",
    "With the tide came the {v} under {m}, bound for {d} with {c} from {o}. The {k}, {n} tons, "
    "took berth {b}.",
    "The {v} dropped anchor and was moved to berth {b}; {m} reports {c} from {o} for {d} in a {k} "
    "of {n} tons.",
    "Arrived, the {v} of {n} tons, from {o}, berth {b}. The master, {m}, declares {c} and will "
    "sail on to {d}.",
    "We had the {v} in from {o} after dark, {m} on deck, {c} below. The {k}, {n} tons, has berth "
    "{b} and is bound for {d}."};

constexpr const char* kNotes[] = {"The {v} is landing her {c} at berth {b}, and {m} wants more hands.",
                                  "The {v} took water at berth {b}; she is bound for {d} as soon as the wind allows.",
                                  "On board the {v}, {m} showed papers for {c} from {o}.",
                                  "For the {v}, {n} tons, harbour dues were paid by {m}.",
                                  "The {v} at berth {b} mended her sails after the passage from {o}.",
                                  "A letter came for the {v}: {m} is awaited in {d} with the {c}.",
                                  "The customs men went over the {v} and found only {c} from {o}, as {m} had said.",
                                  "A lamp was lent to the {v}, berth {b}, {n} tons.",
                                  "The {v} is loading bread for the way to {d}; {m} bought it in the town.",
                                  "Rope was sent to the {v}, and {m} signed for it at berth {b}.",
                                  "The hold of the {v} was opened: {c}, dry and sound, all the way from {o}.",
                                  "The {v}, being {n} tons, needs deep water for {d}; her {c} is heavy.",
                                  "Two men of the {v} fell ill; they blame the water of {o}, and {m} the cook.",
                                  "The {v}, still at berth {b}, sells a little of her {c} before {d}.",
                                  "Asked about the {v}, the clerk wrote: {n} tons, from {o}, bound for {d}.",
                                  "The {v} had her deck washed while {m} counted the {c} at berth {b}.",
                                  "The children came to see the {v}, {n} tons, and {m} told them of {o}.",
                                  "Someone asked passage on the {v} to {d}, and {m} agreed."};

constexpr const char* kDepartures[] = {"The {v} left berth {b} and sailed for {d} with {m} at the helm.",
                                       "The {v} cast off for {d}; her {c} went with her, and berth {b} is free.",
                                       "Sailed, the {v}, {n} tons, {m} master, bound for {d}.",
                                       "The {v}, that came from {o}, went out with the tide to {d} with her {c}.",
                                       "Farewell to the {v} of {n} tons: {m} takes the {c} on to {d}.",
                                       "The tug drew the {v} off berth {b}; {m} waved, and she stood out for {d}.",
                                       "Gone, the {v}: in from {o}, out to {d}, {n} tons."};

constexpr const char* kAskOrigin[] = {"From which port did the {v} come?", "Where did the {v} come from?",
                                      "What was the last port of the {v}?"};
constexpr const char* kAskCargo[] = {"What cargo did the {v} carry?", "What was in the hold of the {v}?",
                                     "What did the {v} bring?"};
constexpr const char* kAskMaster[] = {"Who was the master of the {v}?", "Who commanded the {v}?",
                                      "What was the name of the master of the {v}?"};
constexpr const char* kAskBerth[] = {"At which berth did the {v} lie?", "Which berth was given to the {v}?",
                                     "Where in the harbour did the {v} lie?"};
constexpr const char* kAskTons[] = {"How many tons was the {v}?", "What was the tonnage of the {v}?",
                                    "How big was the {v}?"};
constexpr const char* kAskDestination[] = {"For which port was the {v} bound?", "Where was the {v} bound for?",
                                           "What was the next port of the {v}?"};

}  // namespace

Words VesselAdjectives() { return kAdjectives; }
Words VesselNouns() { return kNouns; }
Words VesselKinds() { return kKinds; }
Words Ports() { return kPorts; }
Words Cargoes() { return kCargoes; }
Words FirstNames() { return kFirstNames; }
Words Surnames() { return kSurnames; }
Words Months() { return kMonths; }
Words Harbours() { return kHarbours; }
Words Winds() { return kWinds; }
Words Skies() { return kSkies; }
Words ArrivalSentences() { return kArrivals; }
Words NoteSentences() { return kNotes; }
Words DepartureSentences() { return kDepartures; }

Words QuestionsAbout(Fact fact) {
  switch (fact) {
    case Fact::kOrigin:
      return kAskOrigin;
    case Fact::kCargo:
      return kAskCargo;
    case Fact::kMaster:
      return kAskMaster;
    case Fact::kBerth:
      return kAskBerth;
    case Fact::kTons:
      return kAskTons;
    case Fact::kDestination:
      return kAskDestination;
  }
  return {};
}

}  // namespace runahead::demo
