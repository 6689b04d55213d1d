"""How the demo corpus of topics was made from its texts and true labels: tags, annotators, planted mistakes.

`python tests/topics_corpus.py` writes the files again; `test_topics.py` checks that they are what this makes.
"""

import csv
import io
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

DATA = Path(__file__).parents[1] / "nbs/pipelines/topics/data"
NLP, CV, OPS, OTHER = "natural-language-processing", "computer-vision", "mlops", "other"
TOPICS = [OPS, CV, NLP, OTHER]  # the rarer first: which one is the tag where a project has several
FINE = ["reinforcement-learning", "graph-learning", "time-series", "tabular", "recommender-systems", "audio"]

# tags as somebody in a hurry would give them: the title has a word of another topic
CONFUSED = {
    "Docker image optimisation for inference": CV, "Segmentation that marketing understands": CV,
    "Talking to bandits": NLP, "Recognition of handwriting style in prose": CV,
    "Embeddings in 30 minutes": NLP, "Transformers for pixels": NLP, "Language of flowers": NLP,
    "Sequence models without words": NLP, "Pipelines in scikit-learn for text": OPS,
    'Wake word "hey kettle"': NLP, "Customer segmentation for a bike shop": CV,
    "Attention over neighbours": NLP, "Versioning 4 TB of images with lakeFS": CV,
    "Prompt patterns that survived production": OPS, "Unit tests for data": "tabular",
    "DQN plays Snake, with a picture of what it is thinking": CV,
    "Deep reinforcement learning for Flappy Bird": CV, "Text-like textures": NLP,
    "Parking sign understanding": NLP, "Multi-armed bandits for newsletter subjects": NLP,
    "Music genre from raw waveform": CV, "Pipeline leaks": "tabular",
    "Node2vec, a walkthrough": NLP, "Reading water meters": NLP, "A chatbot with Rasa for a town hall": OPS,
}  # fmt: skip
TWICE = {"A tokenizer you can read": OPS, "GPU sharing on a budget": CV}  # the second copy has another tag
UNKNOWN = {
    "Sheep faces": "computer-vison", "Image forensics": "computer-vison", "Robot grasping from depth images": "robotics",
    "Curriculum for a quadruped": "robotics", "Secrets in machine-learning pipelines": "security",
}  # fmt: skip
MISSING = ["untitled", "Thesis", "My app"]
SPELLED = {NLP: "NLP", CV: "Computer Vision", OPS: "ML-Ops"}
# mistakes that two careful people make as well
HARD = {
    "Text-like textures": NLP, "Detecting leaks": OPS, "Embeddings at scale": NLP,
    "Speaker diarisation of town council meetings": NLP, "Observability for LLM applications": NLP,
    "Pipelines in scikit-learn for text": OPS,
}  # fmt: skip
KEYWORDS = [
    ("image", CV), ("video", CV), ("photo", CV), ("picture", CV), ("camera", CV), ("text", NLP), ("language", NLP),
    ("word", NLP), ("transformer", NLP), ("pipeline", OPS), ("production", OPS), ("deploy", OPS),
    ("monitor", OPS), ("embedding", NLP), ("segmentation", CV), ("recognition", CV),
]  # fmt: skip


def read(name):
    with open(DATA / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def as_csv(names, rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([names, *rows])
    return text.getvalue()


def topic(tag):
    return OTHER if tag in FINE else tag


def first(labels):
    return min(labels, key=TOPICS.index)


def make_tags(projects, gold, planted):
    "The tag of each project as it was imported, about one in twelve of them wrong."
    rng, seen, tags = random.Random(8), set(), {}
    fixed = {*CONFUSED, *TWICE, *UNKNOWN, *MISSING}
    for row in projects:
        item, title, right = row["item"], row["title"], gold[row["item"]]["tag"]
        tag, again = right, title in seen
        seen.add(title)
        if title in MISSING:
            tag, what = "", "tag_missing"
        elif title in UNKNOWN:
            tag, what = UNKNOWN[title], "tag_unknown"
        elif title in CONFUSED:
            tag, what = CONFUSED[title], "tag_confused"
        elif title in TWICE and again:
            tag, what = TWICE[title], "tag_conflict"
        elif title not in fixed and rng.random() < 0.06:
            others = [t for t in (NLP, CV, OPS, *FINE) if topic(t) not in gold[item]["labels"].split(";")]
            tag, what = rng.choice(others), "tag_random"
        elif right in SPELLED and rng.random() < 0.05:
            tag, what = SPELLED[right], "tag_spelled"
        else:
            what = ""
        tags[item] = tag
        if what:
            planted.append((item, what))
    return tags


def anna(rng, row, labels, tag):
    "Careful; sees a second topic four times in five."
    if rng.random() < 0.04:
        return [rng.choice([name for name in TOPICS if name not in labels])]
    return labels if rng.random() < 0.8 else [first(labels)]


def bela(rng, row, labels, tag):
    "Knows one topic a project, and takes mlops and other for each other."
    one = first(labels)
    if one == OPS and rng.random() < 0.4:
        return [OTHER]
    if one == OTHER and rng.random() < 0.12:
        return [OPS]
    return [rng.choice(TOPICS)] if rng.random() < 0.05 else [one]


def chidi(rng, row, labels, tag):
    "In a hurry: goes by the first word that rings a bell, or by the tag that is there."
    text = f"{row['title']} {row['description']}".lower()
    found = [(text.index(word), label) for word, label in KEYWORDS if word in text]
    if found and rng.random() < 0.9:
        return [min(found)[1]]
    if topic(tag) in TOPICS and rng.random() < 0.35:
        return [topic(tag)]
    return [rng.choice(TOPICS)] if rng.random() < 0.2 else [first(labels)]


def annotate(projects, gold, tags, planted):
    "What three people said: item, annotator, labels, time. `planted` gets their mistakes."
    rows = []
    people = {"anna": (anna, 1.0, 11), "bela": (bela, 0.9, 22), "chidi": (chidi, 0.8, 33)}
    for name, (habit, share, seed) in people.items():
        rng, time = random.Random(seed), datetime(2026, 3, 2, 8, 0, seed, tzinfo=UTC)
        for row in projects:
            item, labels = row["item"], sorted(gold[row["item"]]["labels"].split(";"))
            time += timedelta(seconds=rng.randint(4, 30))
            if rng.random() > share:
                continue
            given = habit(rng, row, labels, tags[item])
            if row["title"] in HARD and name in ("anna", "bela"):
                given = [HARD[row["title"]]]
            rows.append((item, name, ";".join(sorted(given)), f"{time:%Y-%m-%dT%H:%M:%SZ}"))
            if not set(given) <= set(labels):
                planted.append((item, f"{name}_wrong"))
    return rows


def make_files():
    "The files that follow from texts and true labels: name -> content."
    projects, planted = read("projects.csv"), []
    gold = {row["item"]: row for row in read("gold.csv")}
    tags = make_tags(projects, gold, planted)
    annotations = annotate(projects, gold, tags, planted)
    planted += text_oddities(projects)
    texts = [(row["item"], row["title"], row["description"], tags[row["item"]]) for row in projects]
    return {
        "projects.csv": as_csv(["item", "title", "description", "tag"], texts),
        "annotations.csv": as_csv(["item", "annotator", "labels", "time"], annotations),
        "planted.csv": as_csv(["item", "what"], sorted(planted)),
    }


NEAR = {  # second writing -> first
    "Tagging complaint letters for a water utility": "Tagging complaint letters for a water company",
    "Counting penguins from the air": "Counting penguins from above",
    "Rolling back a model in 30 seconds": "Rolling back a model in 40 seconds",
    "Recommending boardgames": "Recommending board games",
    "Reading water meters": "Reading gas meters",
    "Named entity recognition in Amharic newspapers": "Named entity recognition for Amharic newspapers",
    "Node2vec, a walkthrough": "Node2vec walkthrough",
    "A chatbot with Rasa for a town hall": "Chatbot with Rasa for a municipal office",
}
FOREIGN = [
    "¿De qué habla este tuit?", "Analyse d'opinions sur les cantines", "Erkennung von Rissen in Fahrbahnen",
    "Prévision de la fréquentation des musées", "تصنيف الأخبار العربية", "日本語の固有表現抽出",
    "Классификация грибов по фото", "Σύνοψη νομικών κειμένων",
]  # fmt: skip


def text_oddities(projects):
    "Duplicates, empty texts, markup, other languages and emoji: (item, what)."
    found, twins = [], {*NEAR, *NEAR.values()}
    texts = [(row["title"], row["description"]) for row in projects]
    twice = {text for text in texts if texts.count(text) > 1}
    for row in projects:
        item, title, text = row["item"], row["title"], row["description"]
        odd = {
            "text_empty": not text, "text_html": "<" in text or "<" in title, "near_duplicate": title in twins,
            "exact_duplicate": (title, text) in twice, "text_not_english": title in FOREIGN,
            "text_emoji": any(ord(letter) >= 0x1F000 for letter in title + text),
        }  # fmt: skip
        found += [(item, what) for what, holds in odd.items() if holds]
    return found


if __name__ == "__main__":
    for name, content in make_files().items():
        (DATA / name).write_text(content, encoding="utf-8")
