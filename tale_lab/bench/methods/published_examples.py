"""The worked examples that other methods were published with."""

from __future__ import annotations

import re


# Kept as a text that can be compared with the papers; a backslash joins what is one line there.
def _examples(text: str) -> tuple[tuple[str, str], ...]:
    return tuple(re.findall(r"Q: (.*?)\nA: (.*?)(?:\n\n|\Z)", text, re.DOTALL))


DRAFT = _examples("""\
Q: There are 15 trees in the grove. Grove workers will plant trees in the grove today. After they are done, \
there will be 21 trees. How many trees did the grove workers plant today?
A: 21 - 15 = 6. #### 6

Q: If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the parking lot?
A: 3 + 2 = 5. #### 5

Q: Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they have left in total?
A: 32 + 42 = 74; 74 - 35 = 39. #### 39

Q: Jason had 20 lollipops. He gave Denny some lollipops. Now Jason has 12 lollipops. How many lollipops did \
Jason give to Denny?
A: 20 - x = 12; x = 20 - 12 = 8. #### 8

Q: Shawn has five toys. For Christmas, he got two toys each from his mom and dad. How many toys does he have \
now?
A: 2 * 2 = 4; 5 + 4 = 9. #### 9

Q: There were nine computers in the server room. Five more computers were installed each day, from monday to \
thursday. How many computers are now in the server room?
A: 5 * 4 = 20; 9 + 20 = 29. #### 29

Q: Michael had 58 golf balls. On tuesday, he lost 23 golf balls. On wednesday, he lost 2 more. How many golf \
balls did he have at the end of wednesday?
A: 58 - 23 = 35; 35 - 2 = 33. #### 33

Q: Olivia has $23. She bought five bagels for $3 each. How much money does she have left?
A: 5 * 3 = 15; 23 - 15 = 8. #### 8""")
"""Chain of Draft on GSM8K (Xu et al., arXiv 2502.18600); the questions are those of Wei et al. (arXiv
2201.11903)."""

SYMBOLISM = _examples("""\
Q: A car accelerates at 2.5 m/s^2 for 10 seconds. If its initial velocity was 15 m/s, what is its final \
velocity?
A: a = 2.5 m/s^2
t = 10 s
vi = 15 m/s
vf = 15 + (2.5 × 10)
vf = 40 m/s
\\boxed{40}

Q: If a product costs $120 and there is a 15% discount, what is the final price?
Choices:
A) $10
B) $97
C) 102
A: op = 120
d = 15%
dp = 120 × (15 / 100) = 18
fp = 120 - 18 = 102
\\boxed{C}

Q: A circuit has a voltage of 12V and a resistance of 4Ω. What is the current?
A: V = 12V
R = 4Ω
I = 12 / 4 = 3A
\\boxed{3}""")
"""Sketch-of-Thought, Chunked Symbolism (Aytes et al., arXiv 2503.05179, appendix B.1)."""

CHAINING = _examples("""\
Q: What is the name of the currency used in Seoul?
A: #Seoul → #South_Korea → Won
\\boxed{Korean Won}

Q: Which planet has the highest surface temperature?
Choices:
A) Mercury
B) Venus
C) Mars
D) Jupiter
A: #heat_trap
Mercury → no atmosphere → loses heat
Venus → thick CO2 → traps heat → hottest
Mars → thin CO2 → cold
Jupiter → no solid surface
\\boxed{B}

Q: Which vitamin is essential for blood clotting?
A: #blood_clotting → #vitamin_K
\\boxed{Vitamin K}""")
"""Sketch-of-Thought, Conceptual Chaining (appendix B.2)."""

LEXICONS = _examples("""\
Q: Context: The discovery of the first interstellar object passing through the Solar System, 1I/2017 U1 \
('Oumuamua), provoked intense and continuing interest from the scientific community and the general public.
Question: The interstellar object 1I/2017 U1 ('Oumuamua) exhibited unusual characteristics that led to \
various hypotheses about its origin. What does the designation "1I/2017 U1" signify?
Choices:
A) 1st Intergalactic object detected in 2017, classified under category U1
B) 1st Interstellar object cataloged, detected in 2017, following IAU naming conventions
C) 1st Independent Unclassified body observed beyond Neptune in 2017
A: 1I → 1st interstellar object
2017 → Year detected
U1 → Sequence ID
IAU → Naming rules
∴ 1st cataloged interstellar object (2017)
\\boxed{B}

Q: A patient with STEMI is given MONA therapy. They have a history of being allergic to aspirin. Are they at \
risk with this treatment?
A: STEMI → ST-Elevation MI
MONA → {Morphine, O2, Nitrates, Aspirin}
∴ Aspirin ∈ MONA
\\boxed{Yes}

Q: What does EBITDA measure?
A: EBITDA → Earnings Before Interest, Taxes, Depreciation, Amortization
∴ Measures Core Profitability
\\boxed{Core Profitability}""")
"""Sketch-of-Thought, Expert Lexicons (appendix B.3)."""
