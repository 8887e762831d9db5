"""The worked examples that other methods were published with."""

from __future__ import annotations

DRAFT = (
    (
        (
            "There are 15 trees in the grove. Grove workers will plant trees in the grove today. "
            "After they are done, there will be 21 trees. How many trees did the grove workers plant "
            "today?"
        ),
        "21 - 15 = 6. #### 6",
    ),
    (
        (
            "If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the "
            "parking lot?"
        ),
        "3 + 2 = 5. #### 5",
    ),
    (
        (
            "Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they "
            "have left in total?"
        ),
        "32 + 42 = 74; 74 - 35 = 39. #### 39",
    ),
    (
        (
            "Jason had 20 lollipops. He gave Denny some lollipops. Now Jason has 12 lollipops. How "
            "many lollipops did Jason give to Denny?"
        ),
        "20 - x = 12; x = 20 - 12 = 8. #### 8",
    ),
    (
        (
            "Shawn has five toys. For Christmas, he got two toys each from his mom and dad. How many "
            "toys does he have now?"
        ),
        "2 * 2 = 4; 5 + 4 = 9. #### 9",
    ),
    (
        (
            "There were nine computers in the server room. Five more computers were installed each "
            "day, from monday to thursday. How many computers are now in the server room?"
        ),
        "5 * 4 = 20; 9 + 20 = 29. #### 29",
    ),
    (
        (
            "Michael had 58 golf balls. On tuesday, he lost 23 golf balls. On wednesday, he lost 2 "
            "more. How many golf balls did he have at the end of wednesday?"
        ),
        "58 - 23 = 35; 35 - 2 = 33. #### 33",
    ),
    (
        "Olivia has $23. She bought five bagels for $3 each. How much money does she have left?",
        "5 * 3 = 15; 23 - 15 = 8. #### 8",
    ),
)
"""Chain of Draft on GSM8K (Xu et al., arXiv 2502.18600); the questions are those of Wei et al. (arXiv
2201.11903)."""

SYMBOLISM = (
    (
        (
            "A car accelerates at 2.5 m/s^2 for 10 seconds. If its initial velocity was 15 m/s, what "
            "is its final velocity?"
        ),
        "a = 2.5 m/s^2\nt = 10 s\nvi = 15 m/s\nvf = 15 + (2.5 × 10)\nvf = 40 m/s\n\\boxed{40}",
    ),
    (
        (
            "If a product costs $120 and there is a 15% discount, what is the final price?\nChoices:\n"
            "A) $10\nB) $97\nC) 102"
        ),
        "op = 120\nd = 15%\ndp = 120 × (15 / 100) = 18\nfp = 120 - 18 = 102\n\\boxed{C}",
    ),
    (
        "A circuit has a voltage of 12V and a resistance of 4Ω. What is the current?",
        "V = 12V\nR = 4Ω\nI = 12 / 4 = 3A\n\\boxed{3}",
    ),
)
"""Sketch-of-Thought, Chunked Symbolism (Aytes et al., arXiv 2503.05179, appendix B.1)."""

CHAINING = (
    (
        "What is the name of the currency used in Seoul?",
        "#Seoul → #South_Korea → Won\n\\boxed{Korean Won}",
    ),
    (
        (
            "Which planet has the highest surface temperature?\nChoices:\nA) Mercury\nB) Venus\nC) Mars\n"
            "D) Jupiter"
        ),
        (
            "#heat_trap\nMercury → no atmosphere → loses heat\n"
            "Venus → thick CO2 → traps heat → hottest\nMars → thin CO2 → cold\n"
            "Jupiter → no solid surface\n\\boxed{B}"
        ),
    ),
    (
        "Which vitamin is essential for blood clotting?",
        "#blood_clotting → #vitamin_K\n\\boxed{Vitamin K}",
    ),
)
"""Sketch-of-Thought, Conceptual Chaining (appendix B.2)."""

LEXICONS = (
    (
        (
            "Context: The discovery of the first interstellar object passing through the Solar "
            "System, 1I/2017 U1 ('Oumuamua), provoked intense and continuing interest from the "
            "scientific community and the general public.\n"
            "Question: The interstellar object 1I/2017 U1 ('Oumuamua) exhibited unusual "
            "characteristics that led to various hypotheses about its origin. What does the "
            'designation "1I/2017 U1" signify?\nChoices:\n'
            "A) 1st Intergalactic object detected in 2017, classified under category U1\n"
            "B) 1st Interstellar object cataloged, detected in 2017, following IAU naming "
            "conventions\nC) 1st Independent Unclassified body observed beyond Neptune in 2017"
        ),
        (
            "1I → 1st interstellar object\n2017 → Year detected\nU1 → Sequence ID\nIAU → Naming rules\n"
            "∴ 1st cataloged interstellar object (2017)\n\\boxed{B}"
        ),
    ),
    (
        (
            "A patient with STEMI is given MONA therapy. They have a history of being allergic to "
            "aspirin. Are they at risk with this treatment?"
        ),
        ("STEMI → ST-Elevation MI\nMONA → {Morphine, O2, Nitrates, Aspirin}\n∴ Aspirin ∈ MONA\n\\boxed{Yes}"),
    ),
    (
        "What does EBITDA measure?",
        (
            "EBITDA → Earnings Before Interest, Taxes, Depreciation, Amortization\n"
            "∴ Measures Core Profitability\n\\boxed{Core Profitability}"
        ),
    ),
)
"""Sketch-of-Thought, Expert Lexicons (appendix B.3)."""
