"Features, point-in-time joins and split checks on as many rows as the flights have, against scikit-learn."

from datetime import datetime, timedelta

import numpy as np
import polars as pl
from measure import peak_of, seconds

ROWS = 336_776
KEYS = ["carrier", "origin", "dest", "tailnum"]
NUMBERS = ["distance", "temp", "wind", "seats"]


def flights(rows: int = ROWS) -> pl.DataFrame:
    "Rows with as many levels as the real ones."
    rng = np.random.default_rng(0)
    levels = {"carrier": 16, "origin": 3, "dest": 105, "tailnum": 4000}
    start = datetime(2013, 1, 1)
    minutes = pl.Series(rng.integers(0, 525_600, rows)) * 60_000_000
    return pl.DataFrame(
        {key: rng.choice([f"{key}{i}" for i in range(n)], rows) for key, n in levels.items()}
        | {name: rng.normal(100, 30, rows) for name in NUMBERS}
        | {"time": minutes.cast(pl.Duration("us")) + start, "late": rng.random(rows) < 0.2}
    ).with_columns(pl.col("time").dt.hour().alias("hour"))


def make_spec():
    "21 features of every kind."
    from mlworkbench.features import spec as f

    return f.FeatureSpec(
        [
            *[f.scale(name) for name in NUMBERS],
            f.clip("wind"),
            f.bucket("distance"),
            f.ratio("distance", "seats"),
            *[f.category(key) for key in KEYS],
            f.target_mean(["carrier", "origin"]),
            f.target_mean(["origin", "hour"]),
            f.target_mean("tailnum"),
            f.target_mean(["dest", "carrier"]),
            f.date_parts("time", ["month", "weekday", "hour", "yearday"]),
            f.text_hash("tailnum", buckets=64),
            f.passthrough("hour"),
        ]
    )


def shared_features(frame: pl.DataFrame) -> np.ndarray:
    "What both sides can make: scaled numbers, codes and target means."
    from mlworkbench.features.spec import FeatureSpec, category, scale, target_mean

    makers = [scale, category, lambda key: target_mean(key, prior=20)]
    columns = [NUMBERS, KEYS, KEYS]
    spec = FeatureSpec([make(name) for make, names in zip(makers, columns, strict=True) for name in names])
    return spec.fit(frame, target="late").transform(frame).to_numpy()


def shared_with_sklearn(frame: pl.DataFrame) -> np.ndarray:
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OrdinalEncoder, StandardScaler, TargetEncoder

    y = frame["late"].to_numpy()
    parts = [
        ("n", StandardScaler(), NUMBERS),
        ("c", OrdinalEncoder(), KEYS),
        ("t", TargetEncoder(smooth=20.0), KEYS),
    ]
    return ColumnTransformer(parts).set_output(transform="default").fit(frame, y).transform(frame)


def weather(left: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    "Hourly observations of each origin."
    hours = [datetime(2013, 1, 1) + timedelta(hours=i) for i in range(8760)]
    times = pl.DataFrame({"time": hours}).with_row_index("reading")
    return left, left.select("origin").unique().join(times, how="cross").sample(
        fraction=1, shuffle=True, seed=0
    )


def join(left: pl.DataFrame, right: pl.DataFrame) -> list:
    from mlworkbench.features.asof import as_of

    return as_of(left, right, on="time", by="origin", available_after="1h")["reading"].to_list()


def join_with_polars(left: pl.DataFrame, right: pl.DataFrame) -> list:
    late = right.with_columns(pl.col("time") + timedelta(hours=1)).sort("time")
    joined = (
        left.with_row_index()
        .sort("time")
        .join_asof(late, on="time", by="origin", allow_exact_matches=False, check_sortedness=False)
    )
    return joined.sort("index")["reading"].to_list()


def posts(rows: int = 50_000) -> pl.DataFrame:
    "Short texts, one in a hundred of them copied with a change."
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(3000)]
    texts = [" ".join(rng.choice(words, 15)) for _ in range(rows)]
    split = np.where(np.arange(rows) % 5 == 0, "test", "train")
    texts[::100] = [f"{text} w1" for text in texts[1::100]]
    return pl.DataFrame({"text": texts, "split": split})


def main() -> None:
    from mlworkbench.data.overlap import check_splits, near_duplicates
    from mlworkbench.data.splits import split_random

    frame = flights()
    ours, theirs = shared_features(frame), shared_with_sklearn(frame)
    together = [*range(4), *range(8, 12)]  # codes are numbered differently
    np.testing.assert_allclose(ours[:, together], theirs[:, together], rtol=1e-6, atol=1e-9)
    sides = weather(frame)
    assert join(*sides) == join_with_polars(*sides)
    pairs = [
        ("fit and transform 12 features; scikit-learn", shared_features, shared_with_sklearn, (frame,)),
        ("point-in-time join with all checks; bare polars", join, join_with_polars, sides),
    ]
    lines = []
    for name, mine, usual, inputs in pairs:
        one, two = seconds(mine, *inputs), seconds(usual, *inputs)
        lines.append({"what": name, "mlworkbench_s": one, "usual_s": two, "ratio": one / two})
    fitted = make_spec().fit(frame, target="late")
    row = frame.row(0, named=True)
    texts = posts()
    split = split_random(frame, {"train": 0.8, "test": 0.2})
    alone = [
        ("fit 21 features", lambda: make_spec().fit(frame, target="late")),
        ("transform 21 features", lambda: fitted.transform(frame)),
        ("transform_training 21 features", lambda: fitted.transform_training(frame)),
        ("1,000 times transform_row, 21 features", lambda: [fitted.transform_row(row) for _ in range(1000)]),
        ("split_random by row content", lambda: split_random(frame, {"train": 0.8, "test": 0.2})),
        ("check_splits, keys and copies of rows", lambda: check_splits(split, keys=["tailnum"])),
        ("near_duplicates of 50,000 texts", lambda: near_duplicates(texts, "text")),
    ]
    lines += [{"what": name, "mlworkbench_s": seconds(work)} for name, work in alone]
    with pl.Config(
        fmt_str_lengths=80, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, tbl_rows=20
    ):
        print(pl.DataFrame(lines, infer_schema_length=None))
    mine, usual = (
        peak_of("bench_features", "shared_features(flights())"),
        peak_of("bench_features", "shared_with_sklearn(flights())"),
    )
    print(f"peak memory of 12 features on {ROWS:,} rows: {mine} MB, with scikit-learn {usual} MB")


if __name__ == "__main__":
    main()
