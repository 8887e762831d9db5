"""Worked examples by length, for the ``exemplars`` strategy; written for this project.

Every level solves the same questions, at another length. The key of a level is about the mean number of tokens
of its solutions, counted by the tokenizer of the model that they were measured on (Qwen2.5).
"""

from __future__ import annotations

# Texts are set apart by blank lines; the lines of a question are one paragraph.
_QUESTIONS = """\
Lena babysits on 3 evenings a week, 4 hours each evening, for $9 an hour. Every week she spends $28 of this on
bus tickets. How much money does she keep after 2 weeks?

Omar picks 24 pears. His sister picks 8 fewer than twice as many as Omar. They pack all their pears into bags
of 8. How many bags do they fill?

A tent has a price of $160. The shop takes 25% off and adds $15 for delivery. Nadia hands over $200. How much
change does she get?

A library owns 180 comic books. One third of them are on loan, and 2/5 of the others are at the repair shop.
How many comic books are on the shelves?

On Sunday Ines spends half an hour on the stables, three times as long in the orchard, 2 hours at the market,
and half as long in the kitchen as at the market. How many hours does she work?"""

_SOLUTIONS = {
    25: """\
(3 x 4 x 9 - 28) x 2 = 160
Answer: 160

(24 + 2 x 24 - 8) / 8 = 8
Answer: 8

200 - 160 x 0.75 - 15 = 65
Answer: 65

180 x 2/3 x 3/5 = 72
Answer: 72

0.5 + 3 x 0.5 + 2 + 2 / 2 = 5
Answer: 5""",
    75: """\
Lena works 3 x 4 = 12 hours a week.
She earns 12 x $9 = $108 a week.
After the bus tickets she keeps $108 - $28 = $80 a week.
In 2 weeks she keeps 2 x $80 = $160.
Answer: 160

Twice as many as Omar is 2 x 24 = 48 pears.
His sister picks 48 - 8 = 40 pears.
Together they have 24 + 40 = 64 pears.
They fill 64 / 8 = 8 bags.
Answer: 8

The discount is $160 x 0.25 = $40.
The tent then costs $160 - $40 = $120.
With delivery it is $120 + $15 = $135.
Nadia gets back $200 - $135 = $65.
Answer: 65

On loan are 180 / 3 = 60 comic books.
The others are 180 - 60 = 120 comic books.
At the repair shop are 120 x 2 / 5 = 48.
On the shelves are 120 - 48 = 72 comic books.
Answer: 72

The orchard takes 3 x 0.5 = 1.5 hours.
The kitchen takes 2 / 2 = 1 hour.
Adding one by one: 0.5 + 1.5 = 2, then 2 + 2 = 4, then 4 + 1 = 5 hours.
Answer: 5""",
    100: """\
First find how many hours Lena works in one week: 3 evenings x 4 hours = 12 hours.
At $9 an hour, she earns 12 x $9 = $108 in one week.
She spends $28 of this on bus tickets, so she keeps $108 - $28 = $80 each week.
After 2 weeks she has kept 2 x $80 = $160.
Answer: 160

First find how many pears the sister picks. Twice as many as Omar is 2 x 24 = 48 pears.
She picks 8 fewer than that, so she picks 48 - 8 = 40 pears.
Together they have 24 + 40 = 64 pears.
Each bag holds 8 pears, so they fill 64 / 8 = 8 bags.
Answer: 8

First find the discount: 25% of $160 is 0.25 x $160 = $40.
The tent then costs $160 - $40 = $120.
With delivery, Nadia has to pay $120 + $15 = $135 in total.
She hands over $200, so her change is $200 - $135 = $65.
Answer: 65

First find how many comic books are on loan: one third of 180 is 180 / 3 = 60.
That leaves 180 - 60 = 120 comic books.
Of these, 2/5 are at the repair shop, which is 120 x 2 / 5 = 48 comic books.
So the number on the shelves is 120 - 48 = 72.
Answer: 72

The stables take 0.5 hours.
The orchard takes three times as long, which is 3 x 0.5 = 1.5 hours.
The market takes 2 hours.
The kitchen takes half as long as the market, which is 2 / 2 = 1 hour.
Adding one by one: 0.5 + 1.5 = 2, then 2 + 2 = 4, then 4 + 1 = 5 hours.
Answer: 5""",
}

_ASKED = [" ".join(question.splitlines()) for question in _QUESTIONS.split("\n\n")]

LEVELS: dict[int, tuple[tuple[str, str], ...]] = {
    level: tuple(zip(_ASKED, solutions.split("\n\n"), strict=True)) for level, solutions in _SOLUTIONS.items()
}
"""Pairs of question and solution, by the mean length of the solutions in output tokens."""
