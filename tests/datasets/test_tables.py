import pytest

from spade_faiss.datasets import published_mvtec, published_stc


@pytest.mark.parametrize(
    "category, method, percent",
    [
        ("carpet", "Student", 69.5),
        ("zipper", "SPADE", 92.6),
        ("tile", "SPADE", 75.9),
        ("toothbrush", "CNN-Dict", 15.1),
        ("average", "1-NN", 64),
        ("average", "SPADE", 91.7),
    ],
)
def test_pro_of_mvtec_is_as_printed(category, method, percent):
    assert published_mvtec()[category][method] == pytest.approx(percent / 100)


def test_the_table_of_mvtec_is_whole():
    table = published_mvtec()
    assert len(table) == 15 + 1
    assert all(list(row) == list(table["carpet"]) and len(row) == 8 for row in table.values())
    assert all(0 < value < 1 for row in table.values() for value in row.values())
    spade = [row["SPADE"] for name, row in table.items() if name != "average"]
    assert sum(spade) / 15 == pytest.approx(table["average"]["SPADE"], abs=5e-4)


def test_rocauc_of_shanghaitech_is_as_printed():
    table = published_stc()
    assert len(table) == 7
    assert table["SPADE"] == pytest.approx(0.719) and table["ITAE"] == pytest.approx(0.725)
