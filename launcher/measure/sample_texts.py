"""The texts that two models are compared on: a file's lines, or sixty short documents and twenty questions built in."""

from dataclasses import dataclass
from pathlib import Path

from launcher.errors import CorpusError

MIN_LINES = 5  # fewer give no meaningful ranking


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleText:
    """One text without a prefix, and its name in messages."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTexts:
    """`paired`: query i is document i, which is left out of its ranking."""

    name: str
    queries: tuple[SampleText, ...]
    documents: tuple[SampleText, ...]
    paired: bool


def built_in() -> SampleTexts:
    """Short texts in fourteen languages and some code; most questions have an answer in another language too."""
    return SampleTexts(
        name="built in",
        queries=tuple(SampleText(name=f"query {i}", text=text) for i, text in enumerate(QUERIES, 1)),
        documents=tuple(SampleText(name=f"document {i}", text=text) for i, text in enumerate(DOCUMENTS, 1)),
        paired=False,
    )


def read_sample_texts(path: Path) -> SampleTexts:
    """A text per line, UTF-8, each both query and document; empty lines are left out. Raises CorpusError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # not splitlines: a text may have U+2028
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}; give a text file with a text per line") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 at byte {error.start}: convert it, or give another file") from error
    texts = tuple(SampleText(name=f"line {i}", text=line.strip()) for i, line in enumerate(lines, 1) if line.strip())
    if len(texts) < MIN_LINES:
        raise CorpusError(f"{path}: {len(texts)} lines with text, at least {MIN_LINES} are needed to rank: add some")
    return SampleTexts(name=str(path), queries=texts, documents=texts, paired=True)


QUERIES = (
    "overheating lightsaber",
    "How long do I boil an egg?",
    "Warum ist der Himmel blau?",
    "cheap flights to Lisbon",
    "comment réparer une roue de vélo crevée",
    "¿Cuándo se fundó la ciudad de México?",
    "如何学习弹钢琴",
    "電車の遅延証明書はどこでもらえますか",
    "Как вырастить помидоры на балконе?",
    "كيف أتعلم السباحة",
    "symptoms of a vitamin D deficiency",
    "parse JSON from a string in Python",
    "SQL: customers without any order",
    "reverse a linked list",
    "Kündigungsfrist einer Mietwohnung",
    "come si prepara il tiramisù",
    "비밀번호를 잊어버렸어요",
    "why do cats purr",
    "बारिश में फ़ोन भीग जाए तो क्या करें",
    "interest rate of a mortgage",
)

DOCUMENTS = (
    "What do I do if my lightsaber overheats? Switch it off and let the crystal cool for five minutes.",
    "Das Lichtschwert 光剑 🗡️ muss nach jedem Kampf abkühlen.",
    "A lightsaber's hum comes from the plasma that moves through its own field.",
    "An egg is soft after four minutes in boiling water and hard after nine.",
    "Ein weiches Ei braucht vier Minuten, ein hartes neun.",
    "Store eggs with the tip down, and not in the door of the fridge.",
    "Kurzwelliges Licht wird in der Luft stärker gestreut, deshalb sehen wir den Himmel blau.",
    "The sky is blue because air scatters short waves of light more than long ones.",
    "Am Abend ist der Weg des Lichts länger und die Sonne rot.",
    "Lisbon airfare deals: from 39 € if you book six weeks ahead and fly on a Tuesday.",
    "Voos baratos para Lisboa a partir de 39 euros.",
    "The number 28 tram climbs from Martim Moniz to the castle of Lisbon.",
    "Démontez la roue, sortez la chambre à air, trouvez le trou et collez une rustine.",
    "To mend a flat bicycle tyre, find the hole under water and glue a patch on it.",
    "Le Tour de France se court en vingt et une étapes.",
    "México-Tenochtitlan fue fundada en 1325 por los mexicas en una isla del lago de Texcoco.",
    "Mexico City stands on the bed of a drained lake and sinks by up to 40 cm a year.",
    "La ciudad de Puebla está a dos horas en coche.",
    "初学钢琴要先认识五线谱,每天练习半小时,从简单的曲子开始。",
    "Practise the piano for half an hour a day, hands apart first, then slowly together.",
    "一架三角钢琴有八十八个琴键和两百多根弦。",
    "遅延証明書は駅の改札で受け取るか、鉄道会社のサイトから印刷できます。",
    "A certificate that your train was late is printed at the gate or on the railway's site.",
    "新幹線の自由席は先頭の三両です。",
    "Помидорам на балконе нужны солнце, большой горшок и полив каждое утро.",  # Russian
    "Tomatoes grow well in a ten-litre pot on a sunny balcony.",
    "Картофель сажают в начале мая.",
    "ابدأ في الماء الضحل وتعلم أولاً كيف تتنفس وكيف تطفو قبل أن تحرك ذراعيك.",
    "Learn to float and to breathe out under water before you learn the strokes of swimming.",
    "البحر الميت أكثر ملوحة من المحيط بعشر مرات.",
    "Tiredness, aching bones and weak muscles may come from too little vitamin D.",
    "D vitamini eksikliği yorgunluk ve kemik ağrısı yapar.",  # noqa: RUF001 # Turkish
    "Oranges and peppers are rich in vitamin C.",
    "import json\n\nvalue = json.loads(text)  # raises json.JSONDecodeError",
    "const value = JSON.parse(text);",
    "import csv\n\nwith open(path) as file:\n    rows = list(csv.reader(file))",
    "SELECT c.* FROM customers c LEFT JOIN orders o ON o.customer_id = c.id WHERE o.id IS NULL;",
    "SELECT customer_id, count(*) FROM orders GROUP BY customer_id ORDER BY 2 DESC;",
    "CREATE INDEX orders_by_customer ON orders (customer_id);",
    "def reverse(node):\n    last = None\n    while node:\n        node.next, last, node = last, node, node.next\n",
    "fn reverse(list: &mut Vec<i32>) { list.reverse(); }",
    "class Stack:\n    def push(self, item): self.items.append(item)\n    def pop(self): return self.items.pop()",
    "Mieter können mit einer Frist von drei Monaten zum Monatsende kündigen, schriftlich und ohne Grund.",
    "In Germany a tenant gives three months' notice, in writing.",
    "Die Miete ist am dritten Werktag des Monats fällig.",
    "Si montano i tuorli con lo zucchero, si unisce il mascarpone e si alternano strati di savoiardi al caffè.",
    "Tiramisù: layers of coffee-soaked biscuits and a cream of mascarpone, egg and sugar, dusted with cocoa.",
    "La carbonara si fa con guanciale, uova e pecorino, senza panna.",
    "로그인 화면에서 '비밀번호 찾기'를 누르고 이메일로 받은 링크를 여세요.",
    "Forgot your password? Ask for a link by e-mail on the sign-in page.",
    "새 계정을 만들려면 전화번호가 필요합니다.",
    "Cats purr when they are content, and also to calm themselves when they are hurt.",
    "Les chats ronronnent de bien-être, mais aussi pour se calmer.",
    "Dogs wag their tails more to the right when they see their owner.",
    "फ़ोन तुरंत बंद करें, सिम निकालें और उसे सूखी जगह पर एक दिन सूखने दें।",
    "If your phone got wet in the rain, switch it off, take out the SIM and let it dry for a day.",
    "मानसून जून में केरल पहुँचता है।",
    "A fixed-rate mortgage over ten years costs 3.6 % interest at the moment.",
    "Der Bauzins liegt für zehn Jahre fest bei 3,6 %.",
    "A savings account can be closed at any time.",
)
