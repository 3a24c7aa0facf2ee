"""English sentences for the neural voices: templates of our own, filled at random, no sentence twice.

The words are everyday ones, chosen so that every English sound occurs often: numbers, times, names, places, questions
and orders, short answers and long clauses.
"""

from __future__ import annotations

import re

import numpy as np

WORDS: dict[str, str] = {
    "who": (
        "the nurse|my older brother|our new neighbour|the young teacher|a tired driver|the engineer|the chef"
        "|her cousin|the tall man at the door|nobody in the office|the choir|a stranger with a yellow scarf"
        "|the librarian|my grandmother|the electrician|their youngest daughter|the whole team"
        "|a friend from school|the judge|the pilot"
    ),
    "name": (
        "Martha|Oliver|Joyce|Victor|Ingrid|Samuel|Yasmin|Theo|Charlotte|Hugh|Priya|George|Zoe|Felix|Naomi|Walter|Beth"
    ),
    "saw": (
        "found|carried|repaired|painted|measured|borrowed|dropped|sold|noticed|photographed|hid|described|returned"
    ),
    "thing": (
        "a leather suitcase|the broken clock|two wooden chairs|a jar of honey|the blue bicycle|an old map"
        "|the garden hose|a box of screws|the silver kettle|three thick books|a pair of gloves|the guitar"
        "|a bunch of keys|the measuring tape|a basket of mushrooms|the wet umbrella|a small radio"
        "|the chessboard|a shovel|the birthday cake"
    ),
    "place": (
        "behind the garage|near the harbour|in the upstairs hall|at the end of the street"
        "|under the stone bridge|outside the museum|on the third floor|beside the swimming pool"
        "|across the valley|in the back of the shop|between the two villages|at the edge of the forest"
        "|in the waiting room|by the north gate|on the kitchen shelf"
    ),
    "when": (
        "yesterday evening|early this morning|last Thursday|just before lunch|during the summer holidays"
        "|after the meeting|in the middle of the night|a week ago|on the first of March|at half past seven"
        "|as soon as the rain stopped|on Sunday"
    ),
    "future": (
        "tomorrow afternoon|next Wednesday|before the end of the month|in about twenty minutes|after dinner|this winter"
    ),
    "why": (
        "because the road was closed|so that everyone could see it|although no one had asked"
        "|because the price was fair|while the others were asleep|since the weather was changing"
        "|without saying a word|in spite of the noise|before anybody could object|just to be on the safe side"
        "|as if it were the easiest thing in the world"
    ),
    "do": (
        "check the oil|water the tomatoes|call the bank|finish the report|sweep the stairs|book the tickets"
        "|sharpen the knives|write to the council|feed the horses|change the light bulb|charge the battery"
        "|wash the curtains|back up the files"
    ),
    "number": (
        "seven|twelve|nineteen|thirty four|fifty|sixty eight|ninety|a hundred and five|two hundred and forty|six|eleven"
    ),
    "unit": "kilometres|pounds|minutes|litres|pages|dollars|steps|degrees|boxes|guests|metres",
    "adj": (
        "quiet|narrow|generous|rough|purple|cheerful|fragile|enormous|ordinary|sour|gentle|thorough|awkward"
        "|smooth|vague"
    ),
    "noun": (
        "path|choice|voice|village|measure|question|journey|kitchen|answer|cloud|orchestra|machine|letter|fashion|youth"
    ),
    "weather": (
        "cloudy with a little sunshine|bitterly cold|warmer than usual|foggy in the valleys|dry but windy|wet and grey"
    ),
    "city": "Bristol|Toronto|Chicago|Dublin|Sydney|Oxford|Boston|Glasgow|Auckland|Seattle|Leeds|Denver",
    "food": (
        "fresh bread|peach jam|fish soup|roasted carrots|ginger tea|a cheese sandwich|orange juice|boiled eggs|plum pie"
    ),
    "animal": "fox|sheep|goose|mouse|giraffe|squirrel|owl|trout|donkey|bee|hedgehog|whale|thrush",
    "sound": "hum|rattle|whistle|whisper|splash|thud|buzz|chime|crash|sigh",
    "feel": "relieved|annoyed|curious|exhausted|proud|a little nervous|quite sure|surprised|grateful|thirsty",
}

TEMPLATES = """
{who} {saw} {thing} {place} {when}.
{when}, {who} {saw} {thing} {why}.
Could you please {do} before {name} arrives?
{name} says that {who} will {do} {future}.
It is about {number} {unit} from here to {city}.
The forecast for {city} is {weather}, with {number} degrees {future}.
I would like {food}, {food} and {food}, please.
Did you hear that {sound}? It came from {place}.
Turn left {place}, walk {number} metres, and ask for {name}.
We had {food} {place}, and {who} was {feel}.
{name} and {name} {saw} {thing}, {why}.
Please remember to {do} and to {do}.
How many {unit} do we need, {number} or {number}?
The {adj} {animal} and the {adj} {animal} drank from the same {adj} pond.
A {adj} {noun} is better than a {adj} {noun}.
Hello, this is {name} from {city}; I am calling about {thing}.
No, I do not think that {who} would {do} {why}.
If it is {weather}, we should {do} {future}.
There was a {adj} {sound}, then a {sound}, and then nothing at all.
{who} felt {feel} {when} {why}.
My number ends in {number}, {number}, {number}.
The train of thought was lost when {who} {saw} {thing}.
Why is {thing} still {place}?
{name}, have you {saw} {thing} yet?
I was {feel} to learn that {name} had moved to {city} {when}.
Room {number} is {place}; the meeting takes {number} minutes.
What a {adj} {noun}! Even {who} said so.
First, {do}; second, {do}; and third, do not {do}.
Somebody left {thing} {place} {when}, and {name} {saw} it.
Thank you, {name}, that is very {adj} of you.
The {noun} costs {number} dollars in {city} and {number} in {city}.
{who} usually eats {food} {place}, {why}.
Both the {animal} and the {animal} are shown in the {adj} picture {place}.
They measured the {noun} {number} times, {why}.
{name} thought the {noun} was {adj}, but {name} thought it was merely {adj}.
Yes, {future} would suit us; shall we say {number} o'clock?
Listen: the {sound} of the {noun} stops whenever {who} comes in.
Every {animal} in the story was {feel}, except the {animal}.
She asked whether {who} could {do} {future}.
He had never {saw} {thing} so {adj}.
""".strip().splitlines()

_CHOICES = {slot: text.split("|") for slot, text in WORDS.items()}
_PARTICIPLE = {"hid": "hidden"}


def sentences(count: int, seed: int) -> list[str]:
    """`count` different sentences, the same ones for the same seed."""
    random = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[_fill(TEMPLATES[int(random.integers(len(TEMPLATES)))], random)] = None
    return list(found)


def _fill(template: str, random: np.random.Generator) -> str:
    used: set[str] = set()

    def pick(slot: re.Match[str]) -> str:
        left = [word for word in _CHOICES[slot[1]] if word not in used]
        word = left[int(random.integers(len(left)))]
        used.add(word)
        return word

    text = re.sub(r"\{(\w+)\}", pick, template)
    text = re.sub(r"\b(have you|had never) (\w+)", lambda m: f"{m[1]} {_PARTICIPLE.get(m[2], m[2])}", text)
    text = re.sub(r"\b[Aa] (?=[aeio])", lambda m: m[0][0] + "n ", text)
    return text[0].upper() + text[1:]
