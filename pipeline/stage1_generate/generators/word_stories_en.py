"""English stories of `word_problems`: (name, text, chain of steps).

Numbers stand in the text in the order a, b, c, d, e. TRAIN and EVAL share no template. A story
names nobody "he" or "she", so that any name fits.
"""

from __future__ import annotations

NAMES = (
    "Tom", "Anna", "Ben", "Lucy", "Sam", "Mia", "Jack", "Emma", "Leo", "Nina", "Omar", "Sara",
    "Paul", "Rosa", "Max", "Lily", "David", "Julia", "Ali", "Grace", "Ivan", "Elena", "Kofi",
    "Maya", "Peter", "Zoe", "Hugo", "Aisha", "Felix", "Clara", "Noah", "Ines",
)  # fmt: skip

THINGS = tuple(
    {"things": things}
    for things in (
        "apples", "books", "pencils", "marbles", "stickers", "cards", "coins", "shells", "buttons",
        "balloons", "oranges", "candies", "toy cars", "stones", "beads", "cookies", "pens",
        "flowers", "stamps", "photos", "nuts", "peaches", "ribbons", "crayons", "postcards",
        "lemons", "keys", "feathers",
    )
)  # fmt: skip

TRAIN: tuple[tuple[str, str, str], ...] = (
    ("gift", "{name} has {a} {things}. {friend} gives {name} {b} more {things}. "
     "How many {things} does {name} have now?", "a+b"),
    ("give_away", "{name} has {a} {things} and gives {b} of them to {friend}. "
     "How many {things} does {name} have left?", "a-b"),
    ("boxes", "There are {a} boxes. Each box holds {b} {things}. "
     "How many {things} are there in all?", "a*b"),
    ("share", "{name} shares {a} {things} equally among {b} friends. "
     "How many {things} does each friend get?", "a/b"),
    ("together", "{name} has {a} {things} and {friend} has {b} {things}. "
     "How many {things} do they have together?", "a+b"),
    ("more_than", "{name} has {a} {things}. {friend} has {b} more {things} than {name}. "
     "How many {things} does {friend} have?", "a+b"),
    ("difference", "{name} found {a} {things} and {friend} found {b} {things}. "
     "How many more {things} did {name} find than {friend}?", "a-b"),
    ("tickets", "Each ticket costs {a} dollars. {name} buys {b} tickets. "
     "How many dollars does {name} pay?", "a*b"),
    ("bus_stop", "There are {a} people on a bus. At the next stop {b} people get on. "
     "How many people are on the bus now?", "a+b"),
    ("daily_pages", "{name} reads {a} pages every day. "
     "How many pages does {name} read in {b} days?", "a*b"),
    ("age", "{name} is {a} years old. How old will {name} be in {b} years?", "a+b"),
    ("teams", "A class of {a} children forms teams of {b} children. "
     "How many teams are there?", "a/b"),
    ("lost", "{name} had {a} {things} but lost {b} of them on the way home. "
     "How many {things} does {name} still have?", "a-b"),
    ("book_price", "{name} has {a} dollars and spends {b} dollars on a book. "
     "How many dollars does {name} have left?", "a-b"),
    ("buy_and_give", "{name} has {a} {things}. {name} buys {b} more and then gives {c} to "
     "{friend}. How many {things} does {name} have now?", "x=a+b; x-c"),
    ("bags_given", "{name} buys {a} bags with {b} {things} in each bag. Then {name} gives away "
     "{c} {things}. How many {things} are left?", "x=a*b; x-c"),
    ("both_have", "{name} has {a} {things}. {friend} has {b} more {things} than {name}. "
     "How many {things} do they have together?", "x=a+b; a+x"),
    ("pens_and_bag", "{name} buys {a} pens for {b} dollars each and a bag for {c} dollars. "
     "How many dollars does {name} spend in all?", "x=a*b; x+c"),
    ("two_colours", "{name} has {a} red {things} and {b} blue {things}. {name} shares them "
     "equally among {c} friends. How many {things} does each friend get?", "x=a+b; x/c"),
    ("off_and_on", "There are {a} people on a bus. {b} people get off and {c} people get on. "
     "How many people are on the bus now?", "x=a-b; x+c"),
    ("wages", "{name} earns {a} dollars an hour and works {b} hours. Then {name} spends {c} "
     "dollars on lunch. How many dollars are left?", "x=a*b; x-c"),
    ("twice_pages", "{name} reads {a} pages on Monday and twice as many on Tuesday. "
     "How many pages does {name} read on both days together?", "x=a*2; a+x"),
    ("shop_day", "A shop has {a} {things}. It sells {b} in the morning and {c} in the afternoon. "
     "How many {things} are left?", "x=a-b; x-c"),
    ("baked", "{name} bakes {a} cakes, eats {b} of them and puts the rest into {c} boxes, the "
     "same number in each. How many cakes are in each box?", "x=a-b; x/c"),
    ("times_more", "{name} has {a} {things}. {friend} has {b} times as many. "
     "How many more {things} does {friend} have than {name}?", "x=a*b; x-a"),
    ("chairs", "A room has {a} tables with {b} chairs at each table. {c} more chairs are brought "
     "in. How many chairs are in the room now?", "x=a*b; x+c"),
    ("two_ages", "{name} is {a} years old. {friend} is {b} years older than {name}. "
     "How old will {friend} be in {c} years?", "x=a+b; x+c"),
    ("packed", "{name} packs {a} {things} into boxes of {b} and gives {c} boxes away. "
     "How many boxes does {name} keep?", "x=a/b; x-c"),
    ("packs_lost", "{name} buys {a} packs of {b} {things}. {name} gives {c} to {friend} and "
     "loses {d}. How many {things} are left?", "x=a*b; y=x-c; y-d"),
    ("fruit_bill", "{name} buys {a} melons for {b} dollars each and {c} pies for {d} dollars "
     "each. How many dollars does {name} pay in all?", "x=a*b; y=c*d; x+y"),
    ("three_people", "{name} has {a} {things}. {friend} has {b} more than {name}. {third} has "
     "{c} times as many as {friend}. How many {things} do {friend} and {third} have together?",
     "x=a+b; y=x*c; x+y"),
    ("two_stops", "There are {a} people on a train. At the first stop {b} get off and {c} get "
     "on. At the second stop {d} get on. How many people are on the train now?",
     "x=a-b; y=x+c; y+d"),
    ("half_rest", "{name} earns {a} dollars on each of {b} days and spends {c} dollars. {name} "
     "gives half of the rest to {friend}. How many dollars does {friend} get?",
     "x=a*b; y=x-c; y/2"),
    ("library", "A library has {a} shelves with {b} books each. {c} books are lent out and {d} "
     "books come back. How many books are in the library now?", "x=a*b; y=x-c; y+d"),
    ("three_days", "{name} reads {a} pages on Monday, {b} more than that on Tuesday and {c} "
     "pages on Wednesday. How many pages is that in all?", "x=a+b; y=a+x; y+c"),
    ("three_colours", "{name} has {a} red, {b} green and {c} blue {things} and puts the same "
     "number into each of {d} bags. How many {things} are in each bag?", "x=a+b; y=x+c; y/d"),
    ("boxes_and_bags", "{name} buys {a} boxes of {b} {things} and {c} bags of {d} {things}. "
     "{name} gives {e} to {friend}. How many {things} does {name} keep?",
     "x=a*b; y=c*d; z=x+y; z-e"),
    ("up_and_down", "{name} has {a} {things}. {name} buys {b} more, gives {c} to {friend}, finds "
     "{d} and loses {e}. How many {things} does {name} have now?", "x=a+b; y=x-c; z=y+d; z-e"),
    ("envelopes", "{name} works {a} hours on Monday and {b} hours on Tuesday for {c} dollars an "
     "hour. {name} pays {d} dollars for food and puts the rest equally into {e} envelopes. "
     "How many dollars are in each envelope?", "x=a+b; y=x*c; z=y-d; z/e"),
    ("twice_sold", "A shop has {a} shelves with {b} {things} each. It sells {c} on Monday and "
     "twice as many on Tuesday. How many {things} are left?", "x=a*b; y=c*2; z=x-c; z-y"),
    ("three_stops", "There are {a} people on a boat. {b} people get on, {c} get off, {d} more "
     "get on and at last {e} get off. How many people are on the boat now?",
     "x=a+b; y=x-c; z=y+d; z-e"),
)  # fmt: skip

EVAL: tuple[tuple[str, str, str], ...] = (
    ("birds", "There are {a} birds on a fence. Then {b} more birds land on it. "
     "How many birds are on the fence?", "a+b"),
    ("plate", "A plate holds {a} cookies. {name} eats {b} of them. "
     "How many cookies are still on the plate?", "a-b"),
    ("garden_rows", "A garden has {a} rows with {b} flowers in each row. "
     "How many flowers grow in the garden?", "a*b"),
    ("rope", "A rope is {a} metres long. {name} cuts it into {b} equal pieces. "
     "How many metres long is each piece?", "a/b"),
    ("fewer", "{name} picked {a} {things}. {friend} picked {b} fewer. "
     "How many {things} did {friend} pick?", "a-b"),
    ("savings", "{name} saves {a} dollars each week. "
     "How many dollars does {name} save in {b} weeks?", "a*b"),
    ("apple_tree", "A tree has {a} apples. {b} apples fall down, and {c} children share the rest "
     "equally. How many apples does each child get?", "x=a-b; x/c"),
    ("walks", "{name} walks {a} kilometres every morning and {b} kilometres every evening. "
     "How many kilometres does {name} walk in {c} days?", "x=a+b; x*c"),
    ("finder", "{name} has {a} {things}. {name} finds {b} in the park and {c} on the beach. "
     "How many {things} does {name} have then?", "x=a+b; x+c"),
    ("hens", "A farmer has {a} hens. Each hen lays {b} eggs, and the farmer sells {c} of the "
     "eggs. How many eggs are left?", "x=a*b; x-c"),
    ("cinema", "{name} has {a} dollars and buys {b} cinema tickets for {c} dollars each. "
     "How many dollars does {name} have left?", "x=b*c; a-x"),
    ("rows_of_seats", "{a} boys and {b} girls sit in rows of {c}. "
     "How many rows do they fill?", "x=a+b; x/c"),
    ("fewer_both", "{name} has {a} {things}, and {friend} has {b} fewer. "
     "How many {things} do the two have together?", "x=a-b; a+x"),
    ("rolls", "A baker makes {a} trays of {b} rolls. {c} rolls are burnt, and the rest are sold "
     "in bags of {d}. How many bags are sold?", "x=a*b; y=x-c; y/d"),
    ("notebooks", "{name} has {a} dollars, buys {b} notebooks for {c} dollars each and then gets "
     "{d} dollars from {friend}. How many dollars does {name} have now?", "x=b*c; y=a-x; y+d"),
    ("groups", "A class has {a} girls and {b} boys. {c} children are ill, and the others work in "
     "groups of {d}. How many groups are there?", "x=a+b; y=x-c; y/d"),
    ("sport_week", "{name} runs {a} kilometres on each of {b} days and swims {c} kilometres on "
     "each of {d} days. How many kilometres is that in all?", "x=a*b; y=c*d; x+y"),
    ("harvest", "A farmer fills {a} baskets with {b} apples each and {c} baskets with {d} pears "
     "each. All the fruit is shared equally among {e} shops. How many pieces of fruit does each "
     "shop get?", "x=a*b; y=c*d; z=x+y; z/e"),
    ("drinks", "{name} has {a} dollars. {name} buys {b} sandwiches for {c} dollars each and {d} "
     "drinks for {e} dollars each. How many dollars are left?", "x=b*c; y=d*e; z=x+y; a-z"),
    ("car_trip", "{a} children and {b} adults plan a trip. {c} of them stay at home, and the "
     "others go in cars with {d} people each. A car costs {e} dollars. How many dollars do the "
     "cars cost in all?", "x=a+b; y=x-c; z=y/d; z*e"),
)  # fmt: skip
